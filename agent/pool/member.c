/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/member.h"

#include "agent/pool/replica.h"
#include "agent/pool/roster.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#define TICK_TIMEOUT_USEC (5 * USEC_PER_SEC)

struct member {
	struct member_params params;
	struct replica *replica;
	struct cancel *closing;
	pthread_t thread;
};

/* --- Single calls ------------------------------------------------------------------------------
 */

static struct value *texts(const char *first, const char *second)
{
	struct value *args = value_append_string(value_new_array(), first);

	return value_append_string(args, second);
}

/* The coordinator does not take our secret for one. */
static bool is_unknown(int error, const struct fault *fault)
{
	return error == -EREMOTEIO && fault_is(fault, "SESSION_INVALID");
}

static int note_coordinator(struct membership *membership, const struct value *answer,
	bool *ret_is_new, struct fault *fault)
{
	const char *coordinator = value_find_string(answer, "coordinator", "");
	int64_t term = 0;

	if (!*coordinator || parse_int64(value_find_string(answer, "term", ""), &term) < 0)
		return fault_text(fault, -EPROTO, "the coordinator %s does not say who it is",
			membership->url);
	*ret_is_new = term != membership->term || strcmp(coordinator, membership->coordinator) != 0;
	free(membership->coordinator);
	membership->coordinator = xstrdup(coordinator);
	membership->term = term;
	return 0;
}

int member_greet(struct link *link, const char *url, const char *fingerprint,
	struct membership *membership, bool *ret_is_new, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	struct value *args = texts(FERRY_VERSION, url);

	value_append_string(args, fingerprint);
	int r = link_call(link, "greet", args, TICK_TIMEOUT_USEC, NULL, &result, &why);

	if (is_unknown(r, &why))
		r = -EACCES;
	if (r == 0)
		r = note_coordinator(membership, result, ret_is_new, &why);
	if (r < 0 && fault)
		fault_move(fault, &why);
	return r;
}

int member_take_leave(struct link *link, const struct membership *membership, char **ret_bundle,
	struct fault *fault)
{
	struct value *result CLEANUP_VALUE = NULL;
	int r = link_call(link, "take_leave", texts(membership->host, membership->secret),
		TICK_TIMEOUT_USEC, NULL, &result, fault);

	if (r < 0)
		return r;
	const char *bundle = value_string(result, "");
	if (!*bundle)
		return fault_text(fault, -ENOENT,
			"the coordinator %s knows nothing of this host: it was removed from that "
			"pool in another way",
			membership->url);
	*ret_bundle = xstrdup(bundle);
	return 0;
}

void member_left(struct link *link, const struct membership *membership)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	/* What stays there does no harm. */
	if (link_call(link, "left", texts(membership->host, membership->secret), TICK_TIMEOUT_USEC,
		    NULL, &result, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("POOL_NOT_TOLD", "error=\"%s\"", text);
	}
}

/* --- Ticking -----------------------------------------------------------------------------------
 */

/* Whether the pool does not know this host any more. */
static bool tick(struct member *member, bool *was_heard)
{
	const struct member_params *params = &member->params;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	struct value *args = value_new_array();
	int64_t total = 0, free_bytes = 0;

	params->memory(&total, &free_bytes);
	value_append(args, value_new_int(total));
	value_append(args, value_new_int(free_bytes));
	int r = link_call(
		params->link, "tick", args, TICK_TIMEOUT_USEC, member->closing, &result, &fault);
	if (is_unknown(r, &fault))
		return true;
	bool is_heard = r == 0;
	if (is_heard != *was_heard && r != -ECANCELED) {
		char *text CLEANUP_FREE = is_heard ? NULL : fault_describe(&fault);
		if (is_heard)
			log_info("COORDINATOR_BACK", "it answers again");
		else
			log_warn("COORDINATOR_AWAY",
				"error=\"%s\": guests run on, nothing is decided", text);
	}
	*was_heard = is_heard;
	return false;
}

static void *member_main(void *arg)
{
	struct member *member = arg;
	bool is_heard = true;

	do {
		if (tick(member, &is_heard)) {
			log_warn("HOST_EJECTED", "the pool does not know this host any more");
			member->params.ejected(member->params.arg);
			return NULL;
		}
	} while (cancel_sleep(member->closing, ROSTER_TICK_USEC) == 0);
	return NULL;
}

int member_start(
	const struct member_params *params, struct member **ret_member, struct fault *fault)
{
	struct member *member = xcalloc(1, sizeof(*member));
	sigset_t all, before;

	const struct replica_params replica = {.link = params->link,
		.state_dir = params->state_dir,
		.interval_usec = params->copy_usec};
	int r = replica_start(&replica, &member->replica, fault);
	if (r < 0) {
		free(member);
		return r;
	}
	member->params = *params;
	member->closing = cancel_new();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&member->thread, NULL, member_main, member);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		replica_stop(member->replica);
		cancel_free(member->closing);
		free(member);
		return fault_errno(fault, r, "cannot start the thread that ticks the coordinator");
	}
	*ret_member = member;
	return 0;
}

struct member *member_stop(struct member *member)
{
	if (!member)
		return NULL;
	cancel_request(member->closing, "the agent is stopping");
	pthread_join(member->thread, NULL);
	replica_stop(member->replica);
	cancel_free(member->closing);
	free(member);
	return NULL;
}
