/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "schema/pool_private.h"

int pool_db_set_user(
	struct pool_db *pool, const char *name, const char *password_hash, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(pool->db, fault,
		"INSERT INTO users (name, password_hash) VALUES (?, ?) ON CONFLICT (name) DO "
		"UPDATE SET password_hash = excluded.password_hash",
		"tt", name, password_hash);
	return db_end(&scope, r, fault);
}

static int get_user(struct pool_db *pool, const char *name, char **ret_hash, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, "SELECT password_hash FROM users WHERE name = ?",
		"t", name);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	*ret_hash = r > 0 ? xstrdup(db_column_text(query, 0)) : NULL;
	return 0;
}

int pool_db_get_user(struct pool_db *pool, const char *name, char **ret_hash, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, get_user(pool, name, ret_hash, fault), fault);
}

static int list_users(struct pool_db *pool, struct value *users, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int r = db_query(pool->db, &query, fault, "SELECT name, password_hash FROM users", "");

	while (r == 0 && (r = db_next(query, fault)) > 0) {
		value_set_string(users, db_column_text(query, 0), db_column_text(query, 1));
		r = 0;
	}
	return r;
}

int pool_db_list_users(struct pool_db *pool, struct value **ret_users, struct fault *fault)
{
	struct value *users CLEANUP_VALUE = value_new_struct();
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, list_users(pool, users, fault), fault);
	if (r == 0)
		*ret_users = TAKE_PTR(users);
	return r;
}
