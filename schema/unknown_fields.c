/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept of an object for pools that know more of it. A column beside the fields: it goes
 * with the row, and is in no record. */
#include "base/alloc.h"
#include "schema/pool_private.h"

#include <errno.h>
#include <string.h>

static int get(struct pool_db *pool, const struct class_table *table, const char *ref,
	char **ret_text, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf("SELECT \"" UNKNOWN_COLUMN "\" FROM \"%s\" WHERE "
					   "\"ref\" = ?",
		table->class->name);
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, sql, "t", ref);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", table->class->name, ref, NULL);
	const char *text = db_column_text(query, 0);
	*ret_text = text ? xstrdup(text) : NULL;
	return 0;
}

int object_get_unknown(struct pool_db *pool, const char *class, const char *ref, char **ret_text,
	struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, get(pool, table, ref, ret_text, fault), fault);
}

static int set(struct pool_db *pool, const struct class_table *table, const char *ref,
	const char *text, struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("UPDATE \"%s\" SET \"" UNKNOWN_COLUMN "\" = ? WHERE \"ref\" = ?",
			table->class->name);

	int r = object_require(pool, table, ref, fault);
	return r < 0 ? r : db_run(pool->db, fault, sql, "tt", text, ref);
}

int object_set_unknown(struct pool_db *pool, const char *class, const char *ref, const char *text,
	struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	if (text && strlen(text) > UNKNOWN_MAX_BYTES)
		return fault_text(fault, -EINVAL,
			"the fields of this %s that are not known here take %zu bytes; at most %d",
			class, strlen(text), UNKNOWN_MAX_BYTES);
	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, set(pool, table, ref, text, fault), fault);
}
