/* SPDX-License-Identifier: Apache-2.0 */
/* A fresh folder for one database and its journals. */
#ifndef FERRY_TESTS_LIB_FOLDER_H
#define FERRY_TESTS_LIB_FOLDER_H

#include "tests/lib/check.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct folder {
	char path[64];
	char database[96];
};

static inline void folder_make(struct folder *folder)
{
	strcpy(folder->path, "/tmp/ferry-test-XXXXXX");
	assert_non_null(mkdtemp(folder->path));
	snprintf(folder->database, sizeof(folder->database), "%s/test.db", folder->path);
}

static inline void folder_remove(struct folder *folder)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", folder->database, suffixes[i]);
		unlink(path);
	}
	rmdir(folder->path);
}

#endif
