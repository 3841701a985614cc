/* SPDX-License-Identifier: Apache-2.0 */
#include "schema/db_copier.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MSEC 5000

struct db_copier {
	char *path;
	sqlite3 *handle;
};

static int fail(struct db_copier *copier, const char *doing, struct fault *fault)
{
	return fault_text(fault, -EIO, "database %s: %s: %s", copier->path, doing,
		sqlite3_errmsg(copier->handle));
}

int db_copier_new(const char *path, struct db_copier **ret_copier, struct fault *fault)
{
	struct db_copier *copier = xcalloc(1, sizeof(*copier));
	int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;

	copier->path = xstrdup(path);
	if (sqlite3_open_v2(path, &copier->handle, flags, NULL) != SQLITE_OK) {
		int r = fail(copier, "open", fault);
		db_copier_free(copier);
		return r;
	}
	sqlite3_busy_timeout(copier->handle, BUSY_TIMEOUT_MSEC);
	*ret_copier = copier;
	return 0;
}

struct db_copier *db_copier_free(struct db_copier *copier)
{
	if (!copier)
		return NULL;
	sqlite3_close(copier->handle);
	free(copier->path);
	free(copier);
	return NULL;
}

/* Statements with one text or none to bind. ret_value: of the first row; may be NULL. */
static int run(struct db_copier *copier, const char *sql, const char *text, int64_t *ret_value,
	struct fault *fault)
{
	sqlite3_stmt *statement = NULL;
	int r = sqlite3_prepare_v2(copier->handle, sql, -1, &statement, NULL);

	if (r == SQLITE_OK && text)
		r = sqlite3_bind_text(statement, 1, text, -1, SQLITE_STATIC);
	if (r == SQLITE_OK)
		r = sqlite3_step(statement);
	if (r == SQLITE_ROW && ret_value)
		*ret_value = sqlite3_column_int64(statement, 0);
	r = r == SQLITE_ROW || r == SQLITE_DONE ? 0 : fail(copier, sql, fault);
	sqlite3_finalize(statement);
	return r;
}

int db_copier_version(struct db_copier *copier, int64_t *ret_version, struct fault *fault)
{
	return run(copier, "PRAGMA data_version", NULL, ret_version, fault);
}

int db_copier_write(struct db_copier *copier, const char *path, struct fault *fault)
{
	if (unlink(path) < 0 && errno != ENOENT) {
		int error = -errno;
		return fault_errno(fault, error, "cannot remove %s", path);
	}
	/* SQLite would make it readable for all; it takes an empty file that is there. */
	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot make %s", path);
	}
	int r = run(copier, "VACUUM INTO ?", path, NULL, fault);
	if (r < 0)
		unlink(path);
	return r;
}
