/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the supervisor share: supervisor.c (life), supervisor_send.c (what this host is
 * asked to send), supervisor_peer.c (Peer calls), supervisor_operator.c (what an operator says),
 * supervisor_session.c (what authorises them), keeper.c (the thread that looks after receivers). */
#ifndef FERRY_AGENT_MIGRATE_SUPERVISOR_INTERNAL_H
#define FERRY_AGENT_MIGRATE_SUPERVISOR_INTERNAL_H

#include "agent/migrate/queue.h"
#include "agent/migrate/registry.h"
#include "agent/migrate/supervisor.h"

struct supervisor {
	const struct supervisor_params *params;
	struct registry registry;
	struct queue queue; /* of moves that have not begun */
	struct cancel *stop;
	pthread_t keeper;
	int keeper_bell; /* an eventfd: look now */
	bool has_keeper;

	pthread_mutex_t lock; /* protects n_threads, stopping */
	pthread_cond_t idle;
	unsigned n_threads; /* of senders */
	bool stopping;
};

/* Gives the sender its thread. -ESHUTDOWN when the daemon stops. */
int supervisor_start_sender(
	struct supervisor *supervisor, struct migration *migration, struct fault *fault);
/* Blocks until the migration has ended, as supervisor_migrate_send() does. */
int supervisor_await_outcome(struct migration *migration, const char *task, struct cancel *cancel,
	char **ret_vm_ref, struct fault *fault);
/* supervisor_migrate_send(); *ret_begun: whether a migration came to be. */
int supervisor_send(struct supervisor *supervisor, const struct migrate_request *request,
	const char *task, struct cancel *cancel, char **ret_vm_ref, bool *ret_begun,
	struct fault *fault);

/* A final migration leaves registry and agent.db; its `migration` object stays as history. */
void supervisor_retire(struct supervisor *supervisor, struct migration *migration);

/* It is not under way here: UUID_INVALID, or that it has ended. */
int supervisor_not_under_way(struct supervisor *supervisor, const char *uuid, struct fault *fault);

/* HOST_CANNOT_ATTACH_NETWORK [host, network]. */
int supervisor_check_network(
	struct supervisor *supervisor, const char *host, const char *network, struct fault *fault);

/* Where a token leads. */
struct supervisor_address {
	const char *host; /* ref */
	const char *url;
	const char *fingerprint;
	const char *data_address;
};

/* Makes the session, for moves to the host, and the token that names it. */
int supervisor_make_token(struct supervisor *supervisor, const char *caller_session,
	const struct supervisor_address *to, struct value **ret_token, struct fault *fault);
/* Whether it is a session of host.migrate_receive: SESSION_INVALID, RBAC_PERMISSION_DENIED. */
int supervisor_session_check(
	struct supervisor *supervisor, const char *session, struct fault *fault);
int supervisor_session_denied(struct fault *fault);
/* A session does not expire while a migration is bound to it: however late the sender asks, it
 * learns what was decided. */
int supervisor_session_bind(struct supervisor *supervisor, const char *session,
	const char *migration, struct fault *fault);
/* The sender needs no more answers about the migration. */
void supervisor_session_unbind(
	struct supervisor *supervisor, const char *session, const char *migration);

/* Looks at every receiver once: lease, abandon time, cancels, what a restart interrupted. */
void keeper_round(struct supervisor *supervisor);
void *keeper_main(void *supervisor);
/* The next round is now: a cancel does not wait for it. */
void keeper_ring(struct supervisor *supervisor);

#endif
