/* SPDX-License-Identifier: Apache-2.0 */
/* The session of a token: it serves the moves that the token is given for, and nothing else. Its
 * other_config says so, and has an entry per migration that it serves just now. */
#include "agent/migrate/peer.h"
#include "agent/migrate/supervisor_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define SESSION_KEY "ferry:migration"

int supervisor_check_network(
	struct supervisor *supervisor, const char *host, const char *network, struct fault *fault)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	struct value *pifs CLEANUP_VALUE = NULL;
	int r = object_check(pool, "network", network, fault);

	if (r == 0)
		r = object_find(pool, "PIF", "network", network, &pifs, fault);
	for (size_t i = 0; r == 0 && i < pifs->array.n_items; i++) {
		char *owner CLEANUP_FREE = NULL;
		r = object_get_string(
			pool, "PIF", pifs->array.items[i]->string, "host", &owner, fault);
		if (r == 0 && strcmp(owner, host) == 0)
			return 0;
	}
	return r < 0 ? r
		     : fault_set(fault, -ENETUNREACH, "HOST_CANNOT_ATTACH_NETWORK", host, network,
			       NULL);
}

static int check_receive(
	struct supervisor *supervisor, const char *host, const char *network, struct fault *fault)
{
	bool enabled;

	int r = object_get_bool(
		supervisor->params->storage->pool, "host", host, "enabled", &enabled, fault);
	if (r < 0)
		return r;
	if (!enabled)
		return fault_set(fault, -EPERM, "HOST_DISABLED", host, NULL);
	return supervisor_check_network(supervisor, host, network, fault);
}

int supervisor_make_token(struct supervisor *supervisor, const char *caller_session,
	const struct supervisor_address *to, struct value **ret_token, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *config = value_new_struct();
	char *session CLEANUP_FREE = NULL;

	value_set_string(config, SESSION_KEY, "");
	value_set(fields, "other_config", config);
	value_set_string(fields, "this_host", to->host);
	value_set_string(fields, "parent", caller_session);
	value_set_string(fields, "originator", "host.migrate_receive");
	value_set(fields, "last_active", value_new_datetime(clock_wall_sec()));
	value_set(fields, "validation_time", value_new_datetime(clock_wall_sec()));
	int r = object_create(
		supervisor->params->storage->pool, "session", fields, &session, fault);
	if (r < 0)
		return r;
	struct value *token = value_new_struct();
	value_set(token, "SM", value_new_format("%s/services/SM?session_id=%s", to->url, session));
	value_set_string(token, "host", to->host);
	value_set(token, "xenops",
		value_new_format("%s/services/xenops?session_id=%s", to->url, session));
	value_set_string(token, "session_id", session);
	value_set_string(token, "master", to->url);
	value_set_string(token, "ferry_protocol", PEER_PROTOCOL);
	value_set_string(token, "ferry_fingerprint", to->fingerprint);
	value_set_string(token, "ferry_data_address", to->data_address);
	value_set_string(token, "ferry_data_tls", peer_data_tls(supervisor->params));
	*ret_token = token;
	return 0;
}

int supervisor_receive(struct supervisor *supervisor, const char *caller_session, const char *host,
	const char *network, struct value **ret_token, struct fault *fault)
{
	const struct supervisor_params *params = supervisor->params;
	const struct supervisor_address here = {.host = host,
		.url = params->url,
		.fingerprint = params->fingerprint,
		.data_address = params->data_address};
	int r = check_receive(supervisor, host, network, fault);

	return r < 0 ? r
		     : supervisor_make_token(supervisor, caller_session, &here, ret_token, fault);
}

int supervisor_session_denied(struct fault *fault)
{
	return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", "Peer",
		"the migration was begun with another session", NULL);
}

/* Scripts try again with the token that they have, and move several VMs with one: as in XenAPI, a
 * token is good until its session is idle for too long. */
int supervisor_session_check(
	struct supervisor *supervisor, const char *session, struct fault *fault)
{
	struct value *config CLEANUP_VALUE = NULL;

	int r = object_get_field(supervisor->params->storage->pool, "session", session,
		"other_config", &config, fault);
	if (r < 0)
		return fault_set(fault, r, "SESSION_INVALID", session, NULL);
	return value_find(config, SESSION_KEY) ? 0 : supervisor_session_denied(fault);
}

int supervisor_session_bind(struct supervisor *supervisor, const char *session,
	const char *migration, struct fault *fault)
{
	return object_map_set(supervisor->params->storage->pool, "session", session, "other_config",
		migration, "", fault);
}

void supervisor_session_unbind(
	struct supervisor *supervisor, const char *session, const char *migration)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (object_map_remove(pool, "session", session, "other_config", migration, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("MIG-SESSION-BOUND", "migration=%s error=\"%s\"", migration, text);
	}
}
