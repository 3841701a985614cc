/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "schema/pool_private.h"

#include <errno.h>

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

static int query_user(struct pool_db *pool, const char *sql, const char *name, char **ret_text,
	struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, sql, "t", name);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	*ret_text = r > 0 ? xstrdup(db_column_text(query, 0)) : NULL;
	return 0;
}

static int get_user(struct pool_db *pool, const char *sql, const char *name, char **ret_text,
	struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, query_user(pool, sql, name, ret_text, fault), fault);
}

int pool_db_get_user(struct pool_db *pool, const char *name, char **ret_hash, struct fault *fault)
{
	return get_user(
		pool, "SELECT password_hash FROM users WHERE name = ?", name, ret_hash, fault);
}

int pool_db_get_user_role(
	struct pool_db *pool, const char *name, char **ret_role, struct fault *fault)
{
	return get_user(pool, "SELECT role FROM users WHERE name = ?", name, ret_role, fault);
}

/* One row, or -ENOENT. */
static int change_user(struct pool_db *pool, struct fault *fault, const char *name, const char *sql,
	const char *role)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = role ? db_run(pool->db, fault, sql, "tt", role, name)
		 : db_run(pool->db, fault, sql, "t", name);
	if (r == 0 && db_changes(pool->db) == 0)
		r = fault_text(fault, -ENOENT, "there is no user \"%s\"", name);
	return db_end(&scope, r, fault);
}

int pool_db_set_user_role(
	struct pool_db *pool, const char *name, const char *role, struct fault *fault)
{
	return change_user(pool, fault, name, "UPDATE users SET role = ? WHERE name = ?", role);
}

int pool_db_remove_user(struct pool_db *pool, const char *name, struct fault *fault)
{
	return change_user(pool, fault, name, "DELETE FROM users WHERE name = ?", NULL);
}

static int list_users(struct pool_db *pool, struct value *users, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int r = db_query(
		pool->db, &query, fault, "SELECT name, password_hash, role FROM users", "");

	while (r == 0 && (r = db_next(query, fault)) > 0) {
		struct value *user = value_new_struct();
		value_set_string(user, "password_hash", db_column_text(query, 1));
		value_set_string(user, "role", db_column_text(query, 2));
		value_set(users, db_column_text(query, 0), user);
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
