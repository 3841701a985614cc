/* SPDX-License-Identifier: Apache-2.0 */
/* What is read from a copy of pool.db, which is nobody's database yet: the file stays as it is. */
#include "base/alloc.h"
#include "schema/pool_db.h"

#include <errno.h>
#include <sqlite3.h>

static char *column_text(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return xstrdup(text ? text : "");
}

static int read_user(sqlite3 *handle, const char *name, char **ret_hash, char **ret_role)
{
	sqlite3_stmt *statement = NULL;
	int r = sqlite3_prepare_v2(handle, "SELECT password_hash, role FROM users WHERE name = ?",
		-1, &statement, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
	if (r == SQLITE_OK)
		r = sqlite3_step(statement);
	if (r == SQLITE_ROW) {
		*ret_hash = column_text(statement, 0);
		*ret_role = column_text(statement, 1);
	}
	sqlite3_finalize(statement);
	return r;
}

int pool_copy_find_user(
	const char *path, const char *name, char **ret_hash, char **ret_role, struct fault *fault)
{
	sqlite3 *handle = NULL;
	int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX;
	int r = sqlite3_open_v2(path, &handle, flags, NULL);

	*ret_hash = *ret_role = NULL;
	if (r == SQLITE_OK)
		r = read_user(handle, name, ret_hash, ret_role);
	if (r != SQLITE_ROW && r != SQLITE_DONE)
		fault_text(
			fault, -EIO, "%s: %s", path, handle ? sqlite3_errmsg(handle) : "no memory");
	sqlite3_close(handle);
	return r == SQLITE_ROW || r == SQLITE_DONE ? 0 : -EIO;
}
