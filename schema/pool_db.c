/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, the generation counter and its listener. */
#include "schema/pool_db.h"

#include "base/alloc.h"
#include "schema/migrations.h"
#include "schema/pool_private.h"

#include <errno.h>

#define POOL_APPLICATION_ID 0x46727950 /* "FryP" */

/* --- The generation ----------------------------------------------------------------------------
 */

static int fail_retired(struct fault *fault)
{
	return fault_text(fault, -ESHUTDOWN, "the pool has a new coordinator: ask there");
}

/* Other hosts write too: what the counter stood at is asked for when it is needed. */
static int transaction_begun(void *arg, struct fault *fault)
{
	struct pool_db *pool = arg;

	if (atomic_load(&pool->is_retired))
		return fail_retired(fault);
	int r = db_query(pool->db, &pool->stored, fault, "SELECT generation FROM meta", "");
	return r < 0 ? r : db_start(pool->stored, fault);
}

/* A failure undoes the transaction, so that nothing of a wrong counter is ever stored. */
static void take_stored(struct pool_db *pool)
{
	if (!pool->stored)
		return;
	if (db_next(pool->stored, NULL) > 0)
		pool->generation = (uint64_t)db_column_int(pool->stored, 0);
	pool->generation_then = pool->generation;
	pool->stored = db_query_free(pool->stored);
}

uint64_t pool_present_generation(struct pool_db *pool)
{
	take_stored(pool);
	return pool->generation;
}

uint64_t pool_next_generation(struct pool_db *pool, const struct class *class)
{
	take_stored(pool);
	pool->is_changed |= !class->hidden;
	return ++pool->generation;
}

/* The counter is stored with the changes that took from it: a generation that a client was given
 * is never taken again, also after a crash. */
static int store_generation(void *arg, struct fault *fault)
{
	struct pool_db *pool = arg;

	if (pool->stored || pool->generation == pool->generation_then)
		return 0;
	return db_run(
		pool->db, fault, "UPDATE meta SET generation = ?", "i", (int64_t)pool->generation);
}

static bool transaction_ended(void *arg, bool committed)
{
	struct pool_db *pool = arg;
	bool notify = committed && pool->is_changed;

	if (committed && pool->generation != pool->generation_then)
		pool->committed_generation = pool->generation;
	pool->stored = db_query_free(pool->stored);
	if (committed)
		pool->generation_then = pool->generation;
	else
		pool->generation = pool->generation_then;
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

	class_tables_describe(pool);
	int r = class_tables_sync(pool, fault);
	if (r == 0)
		r = db_check_references(pool->db, fault);
	if (r == 0)
		r = tombstones_prune(pool, fault);
	if (r == 0)
		r = db_read_int(pool->db, &generation, fault, "SELECT generation FROM meta", "");
	if (r < 0)
		return r;
	pool->generation = (uint64_t)generation;
	pool->generation_then = pool->generation;
	pool->committed_generation = pool->generation;
	return 0;
}

static void set_hooks(struct pool_db *pool)
{
	const struct db_hooks hooks = {.begun = transaction_begun,
		.committing = store_generation,
		.ended = transaction_ended,
		.notify = tell_listener,
		.arg = pool};

	db_set_hooks(pool->db, &hooks);
}

static int setup(struct pool_db *pool, const char *path, struct fault *fault)
{
	const struct db_kind kind = {.name = "pool",
		.application_id = POOL_APPLICATION_ID,
		.migrations = pool_migrations,
		.n_migrations = n_pool_migrations};
	struct db_scope scope;

	int r = db_open(path, &kind, &pool->db, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, load(pool, fault), fault);
	if (r == 0)
		set_hooks(pool);
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

struct pool_db *pool_db_open_remote(const struct db_transport *transport)
{
	struct pool_db *pool = xcalloc(1, sizeof(*pool));

	pthread_mutex_init(&pool->listen_lock, NULL);
	pool->db = db_open_remote(transport);
	class_tables_describe(pool);
	set_hooks(pool);
	return pool;
}

struct pool_db *pool_db_close(struct pool_db *pool)
{
	if (!pool)
		return NULL;
	db_service_free(pool->service);
	db_close(pool->db);
	class_tables_close(pool);
	pthread_mutex_destroy(&pool->listen_lock);
	free(pool);
	return NULL;
}

/* --- Serving -----------------------------------------------------------------------------------
 */

static int guest_is_committing(void *arg, struct db *guest, struct fault *fault)
{
	struct pool_db *pool = arg;
	int64_t generation = 0;

	/* It has waited while the database was given away. */
	if (atomic_load(&pool->is_retired))
		return fail_retired(fault);
	int r = db_read_int(guest, &generation, fault, "SELECT generation FROM meta", "");

	pool->guest_generation = (uint64_t)generation;
	return r < 0 ? r : 0;
}

static void guest_has_committed(void *arg)
{
	struct pool_db *pool = arg;

	pool->committed_generation = pool->guest_generation;
}

int pool_db_serve(struct pool_db *pool, struct fault *fault)
{
	const struct db_service_params params = {.db = pool->db,
		.committing = guest_is_committing,
		.committed = guest_has_committed,
		.notify = tell_listener,
		.arg = pool};

	return db_service_new(&params, &pool->service, fault);
}

int pool_db_answer(struct pool_db *pool, const char *client, const char *request, char **ret_answer,
	struct fault *fault)
{
	if (!pool->service)
		return fault_text(fault, -ENOTSUP, "this host does not serve the pool's database");
	return db_service_run(pool->service, client, request, ret_answer, fault);
}

int pool_db_hold(struct pool_db *pool, struct fault *fault)
{
	return db_hold(pool->db, fault);
}

void pool_db_retire(struct pool_db *pool)
{
	atomic_store(&pool->is_retired, true);
}

void pool_db_let_go(struct pool_db *pool)
{
	db_let_go(pool->db);
}

int pool_db_transaction(struct pool_db *pool, pool_db_fn fn, void *arg, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, fn(pool, arg, fault), fault);
}
