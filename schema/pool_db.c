/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, the generation counter and its listener. */
#include "schema/pool_db.h"

#include "base/alloc.h"
#include "schema/migrations.h"
#include "schema/pool_private.h"

#define POOL_APPLICATION_ID 0x46727950 /* "FryP" */

/* --- The generation ----------------------------------------------------------------------------
 */

uint64_t pool_next_generation(struct pool_db *pool, const struct class *class)
{
	pool->is_changed |= !class->hidden;
	return ++pool->generation;
}

/* The counter is stored with the changes that took from it: a generation that a client was given
 * is never taken again, also after a crash. */
static int store_generation(void *arg, struct fault *fault)
{
	struct pool_db *pool = arg;

	if (pool->generation == pool->committed_generation)
		return 0;
	return db_run(
		pool->db, fault, "UPDATE meta SET generation = ?", "i", (int64_t)pool->generation);
}

static bool transaction_ended(void *arg, bool committed)
{
	struct pool_db *pool = arg;
	bool notify = committed && pool->is_changed;

	if (committed)
		pool->committed_generation = pool->generation;
	else
		pool->generation = pool->committed_generation;
	pool->is_changed = false;
	return notify;
}

static void tell_listener(void *arg)
{
	struct pool_db *pool = arg;
	void (*changed)(void *, uint64_t);
	void *changed_arg;

	pthread_mutex_lock(&pool->listen_lock);
	changed = pool->changed;
	changed_arg = pool->changed_arg;
	pthread_mutex_unlock(&pool->listen_lock);
	if (changed)
		changed(changed_arg, pool->committed_generation);
}

uint64_t pool_db_generation(struct pool_db *pool)
{
	return pool->committed_generation;
}

void pool_db_listen(
	struct pool_db *pool, void (*changed)(void *arg, uint64_t generation), void *arg)
{
	SCOPE_LOCK(&pool->listen_lock);
	pool->changed = changed;
	pool->changed_arg = arg;
}

/* --- Opening --------------------------------------------------------------------------------- */

static int load(struct pool_db *pool, struct fault *fault)
{
	int64_t generation = 0;

	int r = class_tables_open(pool, fault);
	if (r == 0)
		r = db_check_references(pool->db, fault);
	if (r == 0)
		r = tombstones_prune(pool, fault);
	if (r == 0)
		r = db_read_int(pool->db, &generation, fault, "SELECT generation FROM meta", "");
	if (r < 0)
		return r;
	pool->generation = (uint64_t)generation;
	pool->committed_generation = pool->generation;
	return 0;
}

static int setup(struct pool_db *pool, const char *path, struct fault *fault)
{
	const struct db_kind kind = {.name = "pool",
		.application_id = POOL_APPLICATION_ID,
		.migrations = pool_migrations,
		.n_migrations = n_pool_migrations};
	const struct db_hooks hooks = {.committing = store_generation,
		.ended = transaction_ended,
		.notify = tell_listener,
		.arg = pool};
	struct db_scope scope;

	int r = db_open(path, &kind, &pool->db, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, load(pool, fault), fault);
	if (r == 0)
		db_set_hooks(pool->db, &hooks);
	return r;
}

int pool_db_open(const char *path, struct pool_db **ret_db, struct fault *fault)
{
	struct pool_db *pool CLEANUP_POOL_DB = xcalloc(1, sizeof(*pool));

	pthread_mutex_init(&pool->listen_lock, NULL);
	int r = setup(pool, path, fault);
	if (r < 0)
		return r;
	*ret_db = TAKE_PTR(pool);
	return 0;
}

struct pool_db *pool_db_close(struct pool_db *pool)
{
	if (!pool)
		return NULL;
	db_close(pool->db);
	class_tables_close(pool);
	pthread_mutex_destroy(&pool->listen_lock);
	free(pool);
	return NULL;
}

int pool_db_transaction(struct pool_db *pool, pool_db_fn fn, void *arg, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, fn(pool, arg, fault), fault);
}
