/* SPDX-License-Identifier: Apache-2.0 */
/* Peer.*: what the sending agent asks of this one, with the session that host.migrate_receive made
 * for that move. All but Peer.status take long (disks are made, read, flushed): they run on threads
 * of their own, not on workers. */
#include "agent/api/context.h"
#include "agent/api/jobs.h"
#include "base/alloc.h"
#include "base/inject.h"

#include <errno.h>

struct peer_call;
typedef int (*peer_fn)(struct peer_call *peer, struct value **ret_result, struct fault *fault);

/* A copy of what the call asked: it may not be read while it is pending. */
struct peer_call {
	struct api *api;
	struct call *call;
	const char *verb;
	peer_fn fn;
	char *session;
	char *migration;
	struct value *argument; /* the manifest, the reason, the extents */
	int64_t disk;
	int64_t span;
};

static void peer_call_free(struct peer_call *peer)
{
	free(peer->session);
	free(peer->migration);
	value_free(peer->argument);
	free(peer);
}

static void peer_run(void *arg)
{
	struct peer_call *peer = arg;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result = NULL;
	int r = INJECT_FAULT(&fault, "peer.serve.%s.before", peer->verb);

	if (r == 0)
		r = peer->fn(peer, &result, &fault);
	if (r == 0)
		r = INJECT_FAULT(&fault, "peer.serve.%s.after", peer->verb);
	if (r < 0)
		result = value_free(result);
	if (r < 0 && !fault.code)
		fault_errno(&fault, r, "Migration %s: the peer call failed", peer->migration);
	if (r < 0)
		call_fail(peer->call, &fault);
	else
		call_succeed(peer->call, result);
	peer_call_free(peer);
}

static int peer_start(struct peer_call *peer, struct fault *fault)
{
	int r = jobs_start(peer->api->peer_jobs, peer_run, peer);

	if (r == 0)
		return CALL_PENDING;
	/* Stopping, or all its threads are taken: the sender asks again. */
	fault_set(fault, r, "OTHER_OPERATION_IN_PROGRESS", "migration", peer->migration, "", "",
		NULL);
	peer_call_free(peer);
	return r;
}

/* args[0] is M. */
static struct peer_call *peer_call_new(
	struct call *call, struct value *const *args, const char *verb, peer_fn fn)
{
	struct peer_call *peer = xcalloc(1, sizeof(*peer));

	peer->api = api_of(call);
	peer->call = call;
	peer->verb = verb;
	peer->fn = fn;
	peer->session = xstrdup(call_session(call));
	peer->migration = xstrdup(arg_text(args, 0));
	return peer;
}

static int run_prepare(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_prepare(peer->api->supervisor, peer->session, peer->migration,
		peer->argument, ret_result, fault);
}

static int peer_prepare(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "prepare", run_prepare);

	(void)ret_result;
	peer->argument = value_copy(args[1]);
	return peer_start(peer, fault);
}

static int run_renew(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_renew(
		peer->api->supervisor, peer->session, peer->migration, ret_result, fault);
}

static int peer_renew(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "renew", run_renew);

	(void)ret_result;
	return peer_start(peer, fault);
}

static int run_seal(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_seal(peer->api->supervisor, peer->session, peer->migration,
		peer->argument, ret_result, fault);
}

static int peer_seal(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "seal", run_seal);

	(void)ret_result;
	peer->argument = value_copy(args[1]);
	return peer_start(peer, fault);
}

static int run_finish(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_finish(
		peer->api->supervisor, peer->session, peer->migration, ret_result, fault);
}

static int peer_finish(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "finish", run_finish);

	(void)ret_result;
	return peer_start(peer, fault);
}

static int run_digest(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_digest(peer->api->supervisor, peer->session, peer->migration,
		peer->disk, peer->span, ret_result, fault);
}

static int peer_digest(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "digest", run_digest);

	(void)ret_result;
	peer->disk = args[1]->integer;
	peer->span = args[2]->integer;
	return peer_start(peer, fault);
}

static int run_digest_extents(
	struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_digest_extents(peer->api->supervisor, peer->session, peer->migration,
		peer->disk, value_string(peer->argument, ""), ret_result, fault);
}

static int peer_digest_extents(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "digest_extents", run_digest_extents);

	(void)ret_result;
	peer->disk = args[1]->integer;
	peer->argument = value_copy(args[2]);
	return peer_start(peer, fault);
}

static int run_incoming(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_incoming(
		peer->api->supervisor, peer->session, peer->migration, ret_result, fault);
}

static int peer_incoming(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "incoming", run_incoming);

	(void)ret_result;
	return peer_start(peer, fault);
}

static int run_commit(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_commit(
		peer->api->supervisor, peer->session, peer->migration, ret_result, fault);
}

static int peer_commit(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "commit", run_commit);

	(void)ret_result;
	return peer_start(peer, fault);
}

static int run_abort(struct peer_call *peer, struct value **ret_result, struct fault *fault)
{
	return supervisor_peer_abort(peer->api->supervisor, peer->session, peer->migration,
		value_string(peer->argument, ""), ret_result, fault);
}

static int peer_abort(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct peer_call *peer = peer_call_new(call, args, "abort", run_abort);

	(void)ret_result;
	peer->argument = value_copy(args[1]);
	return peer_start(peer, fault);
}

/* Answers from memory and the database: no thread needed. */
static int peer_status(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = INJECT_FAULT(fault, "peer.serve.status.before");

	return r < 0 ? r
		     : supervisor_peer_status(api_of(call)->supervisor, call_session(call),
			       arg_text(args, 0), ret_result, fault);
}

static const struct param m_params[] = {{"migration", PARAM_STRING, "uuid"}};
static const struct param prepare_params[] = {
	{"migration", PARAM_STRING, "uuid"},
	{"manifest", PARAM_STRUCT, NULL},
};
static const struct param digest_params[] = {
	{"migration", PARAM_STRING, "uuid"},
	{"disk", PARAM_INT, NULL},
	{"span", PARAM_INT, NULL},
};
static const struct param digest_extents_params[] = {
	{"migration", PARAM_STRING, "uuid"},
	{"disk", PARAM_INT, NULL},
	{"extents", PARAM_STRING, NULL},
};
static const struct param abort_params[] = {
	{"migration", PARAM_STRING, "uuid"},
	{"reason", PARAM_STRING, NULL},
};

#define PEER_FLAGS (METHOD_HIDDEN | METHOD_PEER)

static const struct method rows[] = {
	{
		.name = "Peer.prepare",
		.handle = peer_prepare,
		.flags = PEER_FLAGS,
		PARAMS(prepare_params),
		.result = "struct",
		.doc = "Makes the disks of the manifest and exports each to the sender.",
	},
	{
		.name = "Peer.renew",
		.handle = peer_renew,
		.flags = PEER_FLAGS,
		PARAMS(m_params),
		.result = "struct",
		.doc = "Exports the disks anew; the answer says how to log in.",
	},
	{
		.name = "Peer.digest",
		.handle = peer_digest,
		.flags = PEER_FLAGS,
		PARAMS(digest_params),
		.result = "struct",
		.doc = "Digests of one span of a disk, as it is here.",
	},
	{
		.name = "Peer.digest_extents",
		.handle = peer_digest_extents,
		.flags = PEER_FLAGS,
		PARAMS(digest_extents_params),
		.result = "struct",
		.doc = "Digests of extents of a disk, \"offset length offset length ...\".",
	},
	{
		.name = "Peer.incoming",
		.handle = peer_incoming,
		.flags = PEER_FLAGS,
		PARAMS(m_params),
		.result = "struct",
		.doc = "Starts the QEMU that takes the guest's memory; the answer says where to.",
	},
	{
		.name = "Peer.seal",
		.handle = peer_seal,
		.flags = PEER_FLAGS,
		PARAMS(prepare_params),
		.result = "struct",
		.doc = "Withdraws the exports and flushes the disks: nothing can write any more.",
	},
	{
		.name = "Peer.commit",
		.handle = peer_commit,
		.flags = PEER_FLAGS,
		PARAMS(m_params),
		.result = "struct",
		.doc = "The decision: the VM belongs to this pool from here on.",
	},
	{
		.name = "Peer.abort",
		.handle = peer_abort,
		.flags = PEER_FLAGS,
		PARAMS(abort_params),
		.result = "struct",
		.doc = "Gives the migration up and removes what was made for it.",
	},
	{
		.name = "Peer.status",
		.handle = peer_status,
		.flags = PEER_FLAGS,
		PARAMS(m_params),
		.result = "struct",
		.doc = "What is known here of the migration.",
	},
	{
		.name = "Peer.finish",
		.handle = peer_finish,
		.flags = PEER_FLAGS,
		PARAMS(m_params),
		.result = "struct",
		.doc = "The sender is done; the migration can be forgotten.",
	},
};

const struct method_table peer_methods = {rows, ARRAY_SIZE(rows)};
