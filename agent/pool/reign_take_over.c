/* SPDX-License-Identifier: Apache-2.0 */
/* A member becomes the coordinator. */
#include "agent/pool/pool_file.h"
#include "agent/pool/reign.h"
#include "agent/pool/replica.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* How long the coordinator has to show that it is there. */
#define ALIVE_USEC (5 * USEC_PER_SEC)
/* The coordinator keeps writers out meanwhile. */
#define SUCCEED_USEC (45 * USEC_PER_SEC)
/* The same keys as in agent/api: which host works on a task, and for which migration. */
#define TASK_HOST      "ferry:host"
#define TASK_MIGRATION "ferry:migration"

/* --- Whether the coordinator is lost -----------------------------------------------------------
 */

static int check_silent(const struct membership *membership, struct fault *fault)
{
	const struct rank rank = {membership->term, membership->coordinator};
	struct link *link CLEANUP_LINK = link_new(membership->url, membership->fingerprint,
		membership->host, membership->secret, &rank);
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	int r = link_call(link, "whom", NULL, ALIVE_USEC, NULL, &result, &why);

	if (r == -EREMOTEIO && fault_is(&why, "FERRY_OVERRULED") && why.n_params == 4) {
		char *text CLEANUP_FREE = xasprintf(
			"the coordinator %s was replaced by %s: pool.recover_slaves there takes "
			"this host in",
			membership->url, why.params[2]);
		return fault_set(fault, -EPERM, "NOT_IN_EMERGENCY_MODE", text, NULL);
	}
	if (r == 0 || r == -EREMOTEIO || r == -EBADMSG) {
		char *text CLEANUP_FREE =
			xasprintf("the coordinator %s is there and answers", membership->url);
		return fault_set(fault, -EPERM, "NOT_IN_EMERGENCY_MODE", text, NULL);
	}
	return 0;
}

int reign_check_lost(const char *state_dir, const struct membership *membership,
	int64_t *ret_age_sec, struct fault *fault)
{
	int64_t time = 0;
	int r = check_silent(membership, fault);

	if (r == 0)
		r = replica_time(state_dir, &time, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -ENOENT, "OPERATION_NOT_ALLOWED",
			"this host has no copy of the pool's database yet: take over on another "
			"member",
			NULL);
	*ret_age_sec = MAX(clock_wall_sec() - time, (int64_t)0);
	return 0;
}

/* --- What the new pool.db says -----------------------------------------------------------------
 */

struct heir {
	const struct membership *membership;
	const char *task; /* of a hand-over, which this is; NULL: the coordinator is lost */
	char *before;     /* ref of the coordinator that was */
	int64_t term;
};

static int read_pool(struct pool_db *pool, struct heir *heir, char **ret_pool, struct fault *fault)
{
	struct value *pools CLEANUP_VALUE = NULL;
	int64_t term = 0;
	int r = object_get_all(pool, "pool", &pools, fault);

	if (r == 0 && pools->array.n_items != 1)
		r = fault_text(fault, -EBADMSG, "the copy is of no pool");
	if (r == 0)
		r = object_check(pool, "host", heir->membership->host, fault);
	if (r == 0)
		r = object_get_string(pool, "pool", pools->array.items[0]->string, "master",
			&heir->before, fault);
	if (r == 0)
		r = pool_db_get_term(pool, &term, fault);
	if (r < 0)
		return r;
	if (heir->task && term != heir->membership->term)
		return fault_text(fault, -ESTALE,
			"the copy is of term %" PRId64 ", not of %" PRId64, term,
			heir->membership->term);
	heir->term = MAX(term, heir->membership->term) + 1;
	*ret_pool = xstrdup(pools->array.items[0]->string);
	return 0;
}

static int set_secret(
	struct pool_db *pool, const char *host, const char *secret, struct fault *fault)
{
	struct host_link link CLEANUP_HOST_LINK = {0};
	int r = host_link_get(pool, host, &link, fault);

	if (r <= 0)
		return r < 0 ? r
			     : fault_text(fault, -EBADMSG,
				       "the copy does not say how host %s is "
				       "reached",
				       host);
	free(link.secret);
	link.secret = xstrdup(secret);
	return host_link_set(pool, &link, fault);
}

static int end_task(struct pool_db *pool, const char *task, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();

	value_set_string(fields, "status", "success");
	value_set(fields, "progress", value_new_double(1.0));
	value_set(fields, "finished", value_new_datetime(clock_wall_sec()));
	return object_set_fields(pool, "task", task, fields, fault);
}

/* What stands for a migration goes on where it is; what this host was asked is its own now. */
static int move_task(
	struct pool_db *pool, const struct heir *heir, const char *task, struct fault *fault)
{
	struct value *config CLEANUP_VALUE = NULL;
	int r = object_get_field(pool, "task", task, "other_config", &config, fault);
	const char *host = r < 0 ? NULL : value_find_string(config, TASK_HOST, NULL);

	if (r < 0)
		return r;
	if (heir->task && strcmp(task, heir->task) == 0)
		return end_task(pool, task, fault);
	if (host && strcmp(host, heir->membership->host) == 0)
		return object_map_remove(pool, "task", task, "other_config", TASK_HOST, fault);
	if (!host && value_find(config, TASK_MIGRATION))
		return object_map_set(
			pool, "task", task, "other_config", TASK_HOST, heir->before, fault);
	return 0;
}

/* No host is live before it has told the new coordinator so: then it has also said what runs there.
 */
static int forget_live(struct pool_db *pool, const struct heir *heir, struct fault *fault)
{
	struct value *no CLEANUP_VALUE = value_new_bool(false);
	struct value *hosts CLEANUP_VALUE = NULL;
	int r = object_get_all(pool, "host", &hosts, fault);

	for (size_t i = 0; r == 0 && i < hosts->array.n_items; i++) {
		const char *host = hosts->array.items[i]->string;
		char *metrics CLEANUP_FREE = NULL;
		if (strcmp(host, heir->membership->host) == 0)
			continue;
		r = object_get_string(pool, "host", host, "metrics", &metrics, fault);
		if (r == 0)
			r = object_set_field(pool, "host_metrics", metrics, "live", no, fault);
	}
	return r;
}

static int inherit(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct heir *heir = arg;
	struct value *self CLEANUP_VALUE = value_new_string(heir->membership->host);
	struct value *tasks CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;
	int r = read_pool(pool, heir, &ref, fault);

	if (r == 0)
		r = pool_db_set_term(pool, heir->term, fault);
	if (r == 0)
		r = object_set_field(pool, "pool", ref, "master", self, fault);
	/* What the two shared as member and coordinator they share the other way round. */
	if (r == 0)
		r = set_secret(pool, heir->before, heir->membership->secret, fault);
	if (r == 0)
		r = set_secret(pool, heir->membership->host, "", fault);
	if (r == 0)
		r = forget_live(pool, heir, fault);
	if (r == 0)
		r = object_find(pool, "task", "status", "pending", &tasks, fault);
	for (size_t i = 0; r == 0 && i < tasks->array.n_items; i++)
		r = move_task(pool, heir, tasks->array.items[i]->string, fault);
	return r;
}

static int make_fresh(const char *fresh, struct heir *heir, struct fault *fault)
{
	struct pool_db *pool = NULL;
	int r = pool_db_open(fresh, &pool, fault);

	if (r < 0)
		return r;
	r = pool_db_transaction(pool, inherit, heir, fault);
	pool_db_close(pool); /* its journal goes into the file */
	return r;
}

static int take_over(const char *state_dir, const struct membership *membership, const char *task,
	struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", state_dir);
	char *fresh CLEANUP_FREE = xasprintf("%s/pool.db.new", state_dir);
	char *copy CLEANUP_FREE = replica_path(state_dir);
	struct heir heir = {.membership = membership, .task = task};
	int r = pool_file_copy(copy, fresh, fault);

	if (r == 0)
		r = make_fresh(fresh, &heir, fault);
	if (r == 0)
		r = reign_doubt(state_dir, fault);
	if (r == 0)
		r = pool_file_put(fresh, path, fault);
	else
		pool_file_remove(fresh);
	/* The decision: until here it is a member. */
	if (r == 0)
		r = membership_remove(state_dir, fault);
	if (r == 0)
		log_warn("POOL_TAKEN_OVER", "before=%s term=%" PRId64, heir.before, heir.term);
	free(heir.before);
	return r;
}

int reign_take_over(const char *state_dir, const struct membership *membership, struct fault *fault)
{
	return take_over(state_dir, membership, NULL, fault);
}

int reign_succeed(const char *state_dir, const struct membership *membership, const char *task,
	struct fault *fault)
{
	const struct rank rank = {membership->term, membership->coordinator};
	struct link *link CLEANUP_LINK = link_new(membership->url, membership->fingerprint,
		membership->host, membership->secret, &rank);
	int r = replica_fetch(link, state_dir, SUCCEED_USEC, NULL, fault);

	return r < 0 ? r : take_over(state_dir, membership, task, fault);
}
