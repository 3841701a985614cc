/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/peer.h"

#include "agent/migrate/attention.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/parse.h"
#include "xmlrpc/client.h"

#include <errno.h>
#include <string.h>

#define FIRST_PAUSE_USEC    (200 * USEC_PER_MSEC)
#define MAX_PAUSE_USEC      (2 * USEC_PER_SEC)
#define STATUS_TIMEOUT_USEC (10 * USEC_PER_SEC)

struct peer {
	struct migration *migration; /* NULL: none yet */
	struct client *client;
	char *session;
	char *url;
};

int peer_check_token(const struct value *token, struct fault *fault)
{
	static const char *const keys[] = {"SM", "host", "xenops", "session_id", "master",
		"ferry_protocol", "ferry_fingerprint", "ferry_data_address", "ferry_data_tls"};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!value_find_string(token, keys[i], NULL))
			return fault_text(fault, -EINVAL,
				"dest lacks the key \"%s\": pass the map that host.migrate_receive "
				"of a "
				"Ferry pool returned, unchanged",
				keys[i]);
	const char *protocol = value_find_string(token, "ferry_protocol", "");
	if (strcmp(protocol, PEER_PROTOCOL) != 0)
		return fault_text(fault, -EPROTONOSUPPORT,
			"the destination speaks migration protocol \"%s\", this pool " PEER_PROTOCOL
			"; both must run the same version",
			protocol);
	return 0;
}

const char *peer_data_tls(const struct supervisor_params *params)
{
	return params->plain_data ? "off" : "on";
}

int peer_check_data_tls(
	const struct supervisor_params *params, const char *theirs, struct fault *fault)
{
	const char *ours = peer_data_tls(params);

	if (strcmp(theirs, ours) == 0)
		return 0;
	return fault_text(fault, -EPROTONOSUPPORT,
		"[ferryd] data_tls is \"%s\" here and \"%s\" at the other side: disks are sent in "
		"the clear only if both say off; nothing was changed; set both alike in "
		"ferryd.conf and restart the agent that was changed",
		ours, theirs);
}

struct peer *peer_new(const struct value *token)
{
	struct peer *peer = xcalloc(1, sizeof(*peer));

	peer->url = xstrdup(value_find_string(token, "master", ""));
	peer->session = xstrdup(value_find_string(token, "session_id", ""));
	peer->client = client_new(&(struct client_params){
		.url = peer->url,
		.fingerprint = value_find_string(token, "ferry_fingerprint", ""),
	});
	return peer;
}

struct peer *peer_of(struct migration *m)
{
	struct value *token CLEANUP_VALUE = migration_get(m, "token");
	struct peer *peer = peer_new(token);

	peer->migration = m;
	return peer;
}

struct peer *peer_free(struct peer *peer)
{
	if (!peer)
		return NULL;
	client_free(peer->client);
	free(peer->session);
	free(peer->url);
	free(peer);
	return NULL;
}

static int call(struct peer *peer, const char *verb, const struct value *params,
	uint64_t deadline_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault)
{
	char *method CLEANUP_FREE = xasprintf("Peer.%s", verb);
	int r = INJECT_WAIT(cancel, fault, "peer.call.%s.before", verb);

	if (r == 0)
		r = client_call(
			peer->client, method, params, deadline_usec, cancel, ret_result, fault);
	if (r < 0 || (r = INJECT_WAIT(cancel, fault, "peer.call.%s.after", verb)) == 0)
		return r;
	*ret_result = value_free(*ret_result); /* The answer was lost. */
	return r;
}

int peer_call(struct peer *peer, const char *verb, const char *migration, struct value *args,
	uint64_t timeout_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault)
{
	struct value *owned CLEANUP_VALUE = args;
	struct value *params CLEANUP_VALUE = value_new_array();

	value_append_string(params, peer->session);
	value_append_string(params, migration);
	for (size_t i = 0; owned && i < owned->array.n_items; i++)
		value_append(params, value_copy(owned->array.items[i]));
	int r = call(peer, verb, params, clock_deadline(timeout_usec), cancel, ret_result, fault);
	if (peer->migration && r != -ECANCELED)
		attention_note_peer(peer->migration, !peer_is_unreachable(r));
	return r;
}

bool peer_is_unreachable(int error)
{
	return error == -ETIMEDOUT || error == -ECONNREFUSED || error == -ECONNRESET ||
	       error == -EHOSTUNREACH || error == -ENETUNREACH || error == -EPIPE;
}

bool peer_is_busy(int error, const struct fault *fault)
{
	return error < 0 && fault && fault_is(fault, "OTHER_OPERATION_IN_PROGRESS") &&
	       fault->n_params && strcmp(fault->params[0], "migration") == 0;
}

/* A call that takes long is not a peer that is gone. */
static bool answers(struct peer *peer, const char *migration, struct cancel *cancel)
{
	struct value *result CLEANUP_VALUE = NULL;

	int r = peer_call(
		peer, "status", migration, NULL, STATUS_TIMEOUT_USEC, cancel, &result, NULL);
	return r != -ECANCELED && !peer_is_unreachable(r);
}

int peer_call_patiently(struct peer *peer, const char *verb, const char *migration,
	const struct value *args, uint64_t timeout_usec, uint64_t give_up_usec,
	struct cancel *cancel, struct value **ret_result, struct fault *fault)
{
	uint64_t heard = clock_now_usec();
	uint64_t pause = FIRST_PAUSE_USEC;

	for (;;) {
		int r = peer_call(peer, verb, migration, args ? value_copy(args) : NULL,
			timeout_usec, cancel, ret_result, fault);
		bool busy = peer_is_busy(r, fault);
		if (!busy && !peer_is_unreachable(r))
			return r;
		if (busy || (r == -ETIMEDOUT && answers(peer, migration, cancel)))
			heard = clock_now_usec();
		if (clock_now_usec() - heard + pause > give_up_usec)
			return r;
		log_warn("MIG-PEER-RETRY", "migration=%s peer=%s call=%s error=%s", migration,
			peer->url, verb, busy ? "busy" : strerror(-r));
		r = peer->migration ? attention_pause(peer->migration, cancel, pause)
				    : cancel_sleep(cancel, pause);
		if (r > 0) {
			heard = clock_now_usec();
			pause = FIRST_PAUSE_USEC;
			continue;
		}
		if (r < 0)
			return fault_text(fault, r, "cancelled while waiting for %s", peer->url);
		pause = MIN(pause * 2, MAX_PAUSE_USEC);
	}
}

int64_t peer_int(const struct value *record, const char *name, int64_t fallback)
{
	const struct value *value = value_find(record, name);
	int64_t integer;

	if (value && value->type == VALUE_STRING && parse_int64(value->string, &integer) == 0)
		return integer;
	return value_find_int(record, name, fallback);
}
