/* SPDX-License-Identifier: Apache-2.0 */
/* Decisions about incoming migrations: written once, never changed. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"
#include "schema/pool_private.h"

#include <errno.h>

static int find_commit(struct pool_db *pool, const char *migration, bool *ret_committed,
	char **ret_vm_ref, int64_t *ret_decided_at, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault,
		"SELECT committed, vm_ref, decided_at FROM commits WHERE migration = ?", "t",
		migration);
	if (r == 0)
		r = db_next(query, fault);
	if (r <= 0)
		return r;
	*ret_committed = db_column_int(query, 0) != 0;
	if (ret_vm_ref)
		*ret_vm_ref = xstrdup(db_column_text(query, 1));
	if (ret_decided_at)
		*ret_decided_at = db_column_int(query, 2);
	return 1;
}

static int decide(struct pool_db *pool, const char *migration, bool commit, const char *vm_ref,
	struct fault *fault)
{
	if (commit && ref_is_null(vm_ref))
		return fault_text(fault, -EINVAL,
			"migration %s: a commit names the VM that it made", migration);
	return db_run(pool->db, fault,
		"INSERT INTO commits (migration, committed, vm_ref, decided_at) VALUES (?, ?, ?, "
		"?) "
		"ON CONFLICT (migration) DO NOTHING",
		"titi", migration, (int64_t)commit, commit ? vm_ref : NULL, clock_wall_sec());
}

int commit_decide(struct pool_db *pool, const char *migration_uuid, bool commit, const char *vm_ref,
	bool *ret_committed, char **ret_vm_ref, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = decide(pool, migration_uuid, commit, vm_ref, fault);
	if (r == 0)
		r = find_commit(pool, migration_uuid, ret_committed, ret_vm_ref, NULL, fault);
	r = db_end(&scope, r, fault);
	return r < 0 ? r : 0;
}

static int list(
	struct pool_db *pool, int64_t decided_before, struct value *commits, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int r = db_query(pool->db, &query, fault,
		"SELECT migration, committed FROM commits WHERE decided_at < ?", "i",
		decided_before);

	while (r == 0 && (r = db_next(query, fault)) > 0) {
		value_set_bool(commits, db_column_text(query, 0), db_column_int(query, 1) != 0);
		r = 0;
	}
	return r;
}

int commit_list(struct pool_db *pool, int64_t decided_before, struct value **ret_commits,
	struct fault *fault)
{
	struct value *commits CLEANUP_VALUE = value_new_struct();
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, list(pool, decided_before, commits, fault), fault);
	if (r < 0)
		return r;
	*ret_commits = TAKE_PTR(commits);
	return 0;
}

int commit_forget(struct pool_db *pool, const char *migration_uuid, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(pool->db, fault, "DELETE FROM commits WHERE migration = ?", "t", migration_uuid);
	return db_end(&scope, r, fault);
}

int commit_find(struct pool_db *pool, const char *migration_uuid, bool *ret_committed,
	char **ret_vm_ref, int64_t *ret_decided_at, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = find_commit(pool, migration_uuid, ret_committed, ret_vm_ref, ret_decided_at, fault);
	return db_end(&scope, r, fault);
}
