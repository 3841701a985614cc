/* SPDX-License-Identifier: Apache-2.0 */
/* A folder with both databases, a host, and a directory for an SR; removed afterwards. */
#ifndef FERRY_TESTS_LIB_STORAGE_FIXTURE_H
#define FERRY_TESTS_LIB_STORAGE_FIXTURE_H

#include "tests/lib/check.h"

#include "agent/storage/storage.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	char folder[64];
	char directory[80]; /* of the SR */
	char *host;
	char *sr; /* made by fixture_sr() */
	struct storage storage;
	struct fault fault;
};

static inline void fixture_open(struct fixture *fixture)
{
	char *pool CLEANUP_FREE = xasprintf("%s/pool.db", fixture->folder);
	char *agent CLEANUP_FREE = xasprintf("%s/agent.db", fixture->folder);

	check_ok(&fixture->fault, pool_db_open(pool, &fixture->storage.pool, &fixture->fault));
	check_ok(&fixture->fault, agent_db_open(agent, &fixture->storage.agent, &fixture->fault));
}

static inline void fixture_close(struct fixture *fixture)
{
	fixture->storage.agent = agent_db_close(fixture->storage.agent);
	fixture->storage.pool = pool_db_close(fixture->storage.pool);
}

static inline int fixture_setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));
	struct value *host CLEANUP_VALUE = value_new_struct();

	log_set_level(LOG_LEVEL_ERROR);
	strcpy(fixture->folder, "/tmp/ferry-sr-XXXXXX");
	if (!mkdtemp(fixture->folder))
		return -1;
	snprintf(fixture->directory, sizeof(fixture->directory), "%s/images", fixture->folder);
	if (mkdir(fixture->directory, 0700) < 0)
		return -1;
	fixture_open(fixture);
	check_ok(&fixture->fault, object_create(fixture->storage.pool, "host", host, &fixture->host,
					  &fixture->fault));
	fixture->storage.host_ref = fixture->host;
	*state = fixture;
	return 0;
}

static inline int fixture_remove_entry(
	const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	fixture_close(fixture);
	int r = nftw(fixture->folder, fixture_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	fault_clear(&fixture->fault);
	free(fixture->host);
	free(fixture->sr);
	free(fixture);
	return r;
}

/* sr_create on the path; the caller frees *ret_ref. */
static inline int fixture_sr_at(struct fixture *fixture, const char *path, char **ret_ref)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *config CLEANUP_VALUE = value_new_struct();

	value_set_string(fields, "type", "file");
	value_set_string(fields, "name_label", "images");
	value_set_string(config, "location", path);
	return sr_create(&fixture->storage, config, fields, ret_ref, &fixture->fault);
}

/* The fixture's own SR. */
static inline const char *fixture_sr(struct fixture *fixture)
{
	if (!fixture->sr)
		check_ok(&fixture->fault, fixture_sr_at(fixture, fixture->directory, &fixture->sr));
	return fixture->sr;
}

/* vdi_create with that size; the caller frees *ret_ref. */
static inline int fixture_vdi(struct fixture *fixture, struct value *size, char **ret_ref)
{
	struct value *record CLEANUP_VALUE = value_new_struct();

	value_set_string(record, "SR", fixture_sr(fixture));
	if (size)
		value_set(record, "virtual_size", size);
	value_set_string(record, "name_label", "disk");
	return vdi_create(&fixture->storage, record, ret_ref, &fixture->fault);
}

static inline char *fixture_new_vdi(struct fixture *fixture, int64_t size)
{
	char *vdi = NULL;

	check_ok(&fixture->fault, fixture_vdi(fixture, value_new_int(size), &vdi));
	return vdi;
}

static inline struct value *fixture_record(
	struct fixture *fixture, const char *class, const char *ref)
{
	struct value *record = NULL;

	check_ok(&fixture->fault,
		object_get_record(fixture->storage.pool, class, ref, &record, &fixture->fault));
	return record;
}

/* Creates an object from a struct, which is taken over; the caller frees the ref. */
static inline char *fixture_object(struct fixture *fixture, const char *class, struct value *fields)
{
	struct value *owned CLEANUP_VALUE = fields;
	char *ref = NULL;

	check_ok(&fixture->fault,
		object_create(fixture->storage.pool, class, owned, &ref, &fixture->fault));
	return ref;
}

/* A VM with a VBD of the disk; the caller frees the VBD's ref. */
static inline char *fixture_vbd(struct fixture *fixture, const char *vdi, bool attached)
{
	struct value *vbd = value_new_struct();
	char *vm CLEANUP_FREE = fixture_object(fixture, "VM", value_new_struct());

	value_set_string(vbd, "VM", vm);
	value_set_string(vbd, "VDI", vdi);
	value_set_bool(vbd, "currently_attached", attached);
	return fixture_object(fixture, "VBD", vbd);
}

static inline size_t fixture_count(struct fixture *fixture, const char *class)
{
	struct value *refs CLEANUP_VALUE = NULL;

	check_ok(&fixture->fault,
		object_get_all(fixture->storage.pool, class, &refs, &fixture->fault));
	return refs->array.n_items;
}

static inline size_t fixture_count_files(struct fixture *fixture)
{
	DIR *dir = opendir(fixture->directory);
	size_t n = 0;

	assert_non_null(dir);
	for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

static inline size_t fixture_count_journal(struct fixture *fixture)
{
	struct resource_row *rows = NULL;
	size_t n = 0;

	check_ok(&fixture->fault, resource_list(fixture->storage.agent, NULL, "vdi-file", &rows, &n,
					  &fixture->fault));
	for (size_t i = 0; i < n; i++)
		resource_row_clear(&rows[i]);
	free(rows);
	return n;
}

/* Puts a file of that many bytes into the SR's directory. */
static inline void fixture_file(struct fixture *fixture, const char *name, off_t size)
{
	char *path CLEANUP_FREE = xasprintf("%s/%s", fixture->directory, name);
	FILE *file CLEANUP_FCLOSE = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(ftruncate(fileno(file), size), 0);
}

#endif
