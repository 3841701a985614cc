/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator hands its pool to another host, while all is well. */
#include "agent/api/context.h"
#include "agent/pool/reign.h"
#include "agent/pool/roster.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* The other host fetches the database meanwhile, and nobody writes. */
#define SUCCEED_USEC (60 * USEC_PER_SEC)
#define WHOM_USEC    (5 * USEC_PER_SEC)
#define DOUBT_USEC   (30 * USEC_PER_SEC)
#define RETRY_USEC   (500 * USEC_PER_MSEC)

/* The answer was lost: 0 it has taken over, 1 not, -EINPROGRESS nobody can tell. */
static int find_out(struct link *link)
{
	uint64_t deadline = clock_deadline(DOUBT_USEC);

	do {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct value *result CLEANUP_VALUE = NULL;
		int r = link_call(link, "whom", NULL, WHOM_USEC, NULL, &result, &fault);
		if (r == 0)
			return 1;
		if (r == -EREMOTEIO && fault_is(&fault, "FERRY_OVERRULED"))
			return 0;
		cancel_sleep(NULL, RETRY_USEC);
	} while (clock_now_usec() < deadline);
	return -EINPROGRESS;
}

static int ask(struct link *link, const char *task, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct value *args = value_append_string(value_new_array(), task);
	int r = link_call(link, "succeed", args, SUCCEED_USEC, NULL, &result, fault);

	if (r == 0 || r == -EREMOTEIO || link_was_not_sent(r))
		return r;
	int found = find_out(link);
	return found > 0 ? r : found;
}

/* This host follows the new one, and the others do. */
static int step_back(struct api *api, const struct host_link *next, struct fault *fault)
{
	const struct rank rank = {api->term + 1, next->host};
	const struct membership membership = {
		.host = api->host_ref,
		.url = next->url,
		.fingerprint = next->fingerprint,
		.secret = next->secret,
		.coordinator = next->host,
		.term = rank.term,
	};
	struct value *hosts CLEANUP_VALUE = NULL;
	int r = reign_doubt(api->state_dir, fault);

	if (r == 0)
		r = membership_store(api->state_dir, &membership, fault);
	if (r == 0)
		r = reign_recover(api->pool, &rank, next->url, next->fingerprint, &hosts, fault);
	if (r == 0)
		log_info("POOL_HANDED_OVER", "to=%s members=%zu", next->url, hosts->array.n_items);
	return r;
}

static int hand_over(struct api *api, struct link *link, const struct host_link *next,
	const char *task, bool *ret_is_over, struct fault *fault)
{
	int r = pool_db_hold(api->pool, fault);

	if (r < 0)
		return r;
	r = ask(link, task, fault);
	*ret_is_over = r == 0 || r == -EINPROGRESS;
	if (*ret_is_over)
		pool_db_retire(api->pool);
	pool_db_let_go(api->pool);
	if (r == 0)
		return step_back(api, next, fault);
	if (r == -EINPROGRESS)
		fault_text(fault, r,
			"%s fell silent while it took over: this host starts anew, and asks it "
			"again",
			next->url);
	return r;
}

static int find_next(struct api *api, const char *host, struct link **ret_link,
	struct host_link *ret_next, struct fault *fault)
{
	int r = object_check(api->pool, "host", host, fault);

	if (r == 0 && strcmp(host, api->host_ref) == 0)
		r = fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"pool.designate_new_master: the host is the pool's coordinator", NULL);
	if (r == 0)
		r = roster_link(api->roster, host, ret_link, fault);
	if (r == 0)
		r = host_link_get(api->pool, host, ret_next, fault);
	return MIN(r, 0);
}

static int designate(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct host_link next CLEANUP_HOST_LINK = {0};
	struct link *link = NULL;
	bool is_over = false;
	int r = find_next(api, arg_text(args, 0), &link, &next, fault);

	(void)ret_result;
	if (r == 0)
		r = api_close_for_clients(api, fault);
	if (r < 0)
		return r;
	r = hand_over(api, link, &next, call_task(call), &is_over, fault);
	if (is_over)
		api->restart(api->restart_arg);
	else
		atomic_store(&api->is_joining, false);
	return r;
}

static const struct param designate_params[] = {{"host", PARAM_STRING, "host ref"}};

static const struct method rows[] = {
	{
		.name = "pool.designate_new_master",
		.role = USER_POOL_OPERATOR,
		.handle = designate,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(designate_params),
		.result = "void",
		.doc = "Makes a member the coordinator, with all that this one has.",
	},
};

const struct method_table handover_methods = {rows, ARRAY_SIZE(rows)};
