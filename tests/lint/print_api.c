/* SPDX-License-Identifier: Apache-2.0 */
/* Prints docs/api.md: the api on an empty database, which is removed again. */
#include "agent/api/api.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"
#include "schema/pool_db.h"

#include <errno.h>

static int print_docs(const char *path, struct fault *fault)
{
	struct pool_db *pool CLEANUP_POOL_DB = NULL;
	struct api *api CLEANUP_API = NULL;
	int r = pool_db_open(path, &pool, fault);

	if (r < 0)
		return r;
	struct storage storage = {.pool = pool};
	const struct api_params params = {
		.storage = &storage,
		.host_ref = REF_NULL,
		.pool_ref = REF_NULL,
	};
	r = api_new(&params, &api, fault);
	if (r < 0)
		return r;
	api_print_docs(api, stdout);
	return fflush(stdout) == 0 ? 0 : fault_errno(fault, -errno, "Cannot write the page");
}

static void remove_database(const char *folder, const char *path)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char *file CLEANUP_FREE = xasprintf("%s%s", path, suffixes[i]);
		unlink(file);
	}
	rmdir(folder);
}

int main(void)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char folder[] = "/tmp/ferry-print-api-XXXXXX";

	log_set_level(LOG_LEVEL_WARN);
	if (!mkdtemp(folder)) {
		perror(folder);
		return 1;
	}
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", folder);
	int r = print_docs(path, &fault);
	remove_database(folder, path);
	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		fprintf(stderr, "print_api: %s\n", text);
	}
	return r < 0;
}
