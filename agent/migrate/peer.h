/* SPDX-License-Identifier: Apache-2.0 */
/* The sender's way to the destination: the token of host.migrate_receive and the Peer.* calls. */
#ifndef FERRY_AGENT_MIGRATE_PEER_H
#define FERRY_AGENT_MIGRATE_PEER_H

#include "agent/migrate/migration.h"

#define PEER_PROTOCOL "2"
/* As the SR of a disk: where the destination puts what nobody has said a place for. */
#define PEER_DEFAULT_SR "default"

/* Checks a token as given by a client: XenAPI's five keys and ours. INTERNAL_ERROR naming the
 * missing key. */
int peer_check_token(const struct value *token, struct fault *fault);

/* "on" or "off": whether this side moves disks in TLS. Both sides must say the same. */
const char *peer_data_tls(const struct supervisor_params *params);
/* -EPROTONOSUPPORT: the other side's word is another one. */
int peer_check_data_tls(
	const struct supervisor_params *params, const char *theirs, struct fault *fault);

struct peer;

/* token is borrowed for the call. One peer belongs to one thread. */
struct peer *peer_new(const struct value *token);
/* The destination of a migration that this host sends, which outlives it: what is heard of it, or
 * is not, is noted there, and an operator can shorten the pauses of peer_call_patiently. */
struct peer *peer_of(struct migration *migration);
struct peer *peer_free(struct peer *peer);

/* One call: Peer.<verb>(session, migration, args...). args: array or NULL, taken over. Results as
 * client_call. */
int peer_call(struct peer *peer, const char *verb, const char *migration, struct value *args,
	uint64_t timeout_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault);

/* Whether the error of peer_call says nothing about the migration: the peer could not be reached.
 */
bool peer_is_unreachable(int error);
/* It said "not now; ask again" (migration_busy). */
bool peer_is_busy(int error, const struct fault *fault);

/* peer_call again and again, with growing pauses, until the peer answers something else than "not
 * now" (migration_busy), cancel, or nothing at all was heard of it for give_up_usec (then the last
 * error). */
int peer_call_patiently(struct peer *peer, const char *verb, const char *migration,
	const struct value *args, uint64_t timeout_usec, uint64_t give_up_usec,
	struct cancel *cancel, struct value **ret_result, struct fault *fault);

/* A result's int, which XML-RPC carries as text. */
int64_t peer_int(const struct value *record, const char *name, int64_t fallback);

DEFINE_CLEANUP(struct peer *, peer_free)
#define CLEANUP_PEER CLEANUP(cleanup_peer_free)

#endif
