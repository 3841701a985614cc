/* SPDX-License-Identifier: Apache-2.0 */
/* Fault points (base/inject.h) of the test's own process, in builds that have them. */
#ifndef FERRY_TESTS_LIB_POINTS_H
#define FERRY_TESTS_LIB_POINTS_H

#ifdef FERRY_INJECT

#include "tests/lib/check.h"

#include "base/cleanup.h"
#include "base/inject.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct points {
	char path[64];
};

/* Before there are threads. */
static inline void points_open(struct points *points)
{
	static const char *const folders[] = {"", "/armed", "/fired"};
	char path[128];

	strcpy(points->path, "/tmp/ferry-points-XXXXXX");
	assert_non_null(mkdtemp(points->path));
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/inject%s", points->path, folders[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	inject_open(points->path);
	assert_true(inject_is_on);
}

static inline void points_path(
	const struct points *points, const char *kind, const char *name, char path[256])
{
	snprintf(path, 256, "%s/inject/%s/%s", points->path, kind, name);
}

static inline void points_disarm(const struct points *points, const char *name)
{
	char path[256];

	points_path(points, "armed", name, path);
	unlink(path);
	points_path(points, "fired", name, path);
	unlink(path);
}

/* rule: "error EIO after=2", as base/inject.h says. */
static inline void points_arm(const struct points *points, const char *name, const char *rule)
{
	char fresh[256], path[256];

	points_disarm(points, name);
	points_path(points, "", name, fresh);
	points_path(points, "armed", name, path);
	FILE *file = fopen(fresh, "we");
	assert_non_null(file);
	fprintf(file, "%020d\n%s\n", 0, rule);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(rename(fresh, path), 0);
}

/* Units that passed since it was armed; 0 for one that is not. */
static inline unsigned long long points_passed(const struct points *points, const char *name)
{
	static const char *const kinds[] = {"armed", "fired", "armed"};
	unsigned long long passed = 0;
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		points_path(points, kinds[i], name, path);
		FILE *file CLEANUP_FCLOSE = fopen(path, "re");
		if (file && fscanf(file, "%llu", &passed) == 1)
			break;
	}
	return passed;
}

static inline void points_remove_folder(const char *path)
{
	char child[512];
	DIR *folder = opendir(path);
	const struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		unlink(child);
	}
	if (folder)
		closedir(folder);
	rmdir(path);
}

static inline void points_close(const struct points *points)
{
	static const char *const folders[] = {"/inject/armed", "/inject/fired", "/inject", ""};
	char path[128];

	inject_close();
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s%s", points->path, folders[i]);
		points_remove_folder(path);
	}
}

#endif

#endif
