/* SPDX-License-Identifier: Apache-2.0 */
/* The set of migrations of this host: starting, finding, cancelling, recovering them.
 *
 * A migration has a thread of its own. The calls here are what agent/api converts XenAPI and Peer
 * calls to; those marked "blocks" are called from task threads, the others from request handlers.
 */
#ifndef FERRY_AGENT_MIGRATE_SUPERVISOR_H
#define FERRY_AGENT_MIGRATE_SUPERVISOR_H

#include "agent/storage/storage.h"
#include "agent/tunnel/tunnel.h"
#include "agent/vm/guests.h"
#include "base/cancel.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stdint.h>

struct supervisor;

/* Borrowed for the supervisor's life. */
struct supervisor_params {
	const struct storage *storage; /* databases and this host's ref */
	struct guests *guests;
	struct tunnel *tunnel; /* where senders' disks and memory arrive; started by the daemon */
	const char *watchdog;  /* program */
	const char *state_dir;
	const char *run_dir;      /* short: sockets live beneath it */
	const char *url;          /* "https://address:port": how peers reach this agent */
	const char *fingerprint;  /* of our certificate */
	const char *data_address; /* numeric: of the data port */
	bool plain_data;          /* disks are sent in the clear: tgtd binds data_address itself */
	const char *tgtd;         /* program */
	unsigned tgtd_threads;
	const char *qemu_nbd;   /* program that reads images that are not raw; NULL: none */
	unsigned copy_sessions; /* per disk; 0: default of the copier */
	uint64_t copy_request_bytes;
	uint64_t copy_in_flight_bytes;
	uint64_t bandwidth_bytes_per_sec; /* per migration; 0: unlimited */
	uint64_t max_downtime_usec;       /* of a guest's pause, unless a move says otherwise */
	unsigned max_sending;             /* at once; more wait for their turn */
	unsigned max_queued;              /* that wait; more: TOO_MANY_STORAGE_MIGRATES */
	/* Whether what was committed to the pool's database is at another host of the pool: 1;
	 * 0: there is no other; -ESTALE: this pool has another coordinator by now; another
	 * failure: none has said so. Blocks for some seconds at most. NULL: there is no other. */
	int (*secure)(void *arg, struct cancel *cancel, struct fault *fault);
	void *secure_arg;
	uint64_t heartbeat_usec;
	uint64_t lease_usec;
	uint64_t abandon_usec;
	uint64_t peer_timeout_usec; /* how long a sender tries to reach its peer before it gives up
				     */
};

/* Opens nothing, starts nothing. */
struct supervisor *supervisor_new(const struct supervisor_params *params);
/* Recovery: re-enters every unfinished migration at its stored state. Called once, before the
 * server answers. */
int supervisor_start(struct supervisor *supervisor, struct fault *fault);
/* Threads end where they are (their state is stored); the next start goes on. Blocks for them.
 * Callers that wait in the functions below are let go, and those that come later are refused or
 * served from what is stored: the supervisor stays until supervisor_stop(), which comes after the
 * last of them. NULL is fine. */
void supervisor_close(struct supervisor *supervisor);
/* Closes it if needed and frees it. NULL is fine; returns NULL. */
struct supervisor *supervisor_stop(struct supervisor *supervisor);

/* host.migrate_receive: makes a session for moves to this host and the token that names it. */
int supervisor_receive(struct supervisor *supervisor, const char *caller_session, const char *host,
	const char *network, struct value **ret_token, struct fault *fault);

/* Arguments of VM.migrate_send and VM.assert_can_migrate; all borrowed. */
struct migrate_request {
	const char *operation; /* "migrate_send" or "pool_migrate" */
	const char *vm;
	const struct value *dest;    /* the token */
	const struct value *vdi_map; /* VDI ref -> SR ref */
	const struct value *vif_map; /* VIF ref -> network ref */
	const struct value *options;
};

/* Blocks (it asks the destination). 0: migrate_send would begin. */
int supervisor_assert_can_migrate(struct supervisor *supervisor,
	const struct migrate_request *request, struct cancel *cancel, struct fault *fault);

/* Blocks until the migration has ended, and before until its turn has come (queue.h), when all is
 * checked again: 0 with the VM's ref in the destination pool, or a fault:
 * TASK_CANCELLED [task] after a cancel, -ESHUTDOWN when the daemon stops and the migration is to go
 * on. task: its progress, other_config and VM.current_operations are kept up to date ("" for none).
 * cancel is the task's token. */
int supervisor_migrate_send(struct supervisor *supervisor, const struct migrate_request *request,
	const char *task, struct cancel *cancel, char **ret_vm_ref, struct fault *fault);

/* VM.pool_migrate: the same for a guest that moves to another host of this pool; its disks that the
 * host does not reach are copied (rehome_choose_srs). Faults also of rehome_check_host. */
int supervisor_pool_migrate(struct supervisor *supervisor, const char *vm, const char *host,
	const struct value *options, const char *caller_session, const char *task,
	struct cancel *cancel, struct fault *fault);

/* Takes up the wait of a supervisor_migrate_send that a restart of the daemon cut off; `uuid` is
 * the migration that the task's other_config names as "ferry:migration". Result as there (one that
 * waited for its turn has failed); UUID_INVALID when nothing is known of it. */
int supervisor_await(struct supervisor *supervisor, const char *uuid, const char *task,
	struct cancel *cancel, char **ret_vm_ref, struct fault *fault);

/* VDI.pool_migrate; see vdi_move_run (vdi_move.h). */
int supervisor_move_vdi(struct supervisor *supervisor, const char *vdi, const char *sr,
	const char *task, struct cancel *cancel, struct fault *fault);

/* Copies, clones and snapshots of halted VMs and their disks; see copies_run (copies.h). The
 * request's `stop` is set here. */
struct copies_request;
int supervisor_copy(struct supervisor *supervisor, struct copies_request *request, char **ret_ref,
	struct fault *fault);

/* Asks migration `uuid` of this host to stop: 0 accepted, or a fault: UUID_INVALID, or the truth
 * when it is too late (OPERATION_NOT_ALLOWED ["committed at ..."]). Does not wait. */
int supervisor_cancel(
	struct supervisor *supervisor, const char *uuid, const char *who, struct fault *fault);

/* Whether it is under way here, for that task. */
bool supervisor_sends(struct supervisor *supervisor, const char *uuid, const char *task);

/* The destination of migration `uuid`, which this host has aborted (or of which an operator said
 * that it is committed), is gone for ever: it is no longer told so. UUID_INVALID,
 * OPERATION_NOT_ALLOWED in any other state. */
int supervisor_forget(struct supervisor *supervisor, const char *uuid, struct fault *fault);

/* An operator who has looked at the destination says what it decided about migration `uuid`: only
 * for a sender in COMMITTING that is in doubt, else OPERATION_NOT_ALLOWED with the truth. Wrong, it
 * makes two runners of one VM, or none. Stored before it is acted upon; the destination is asked
 * once more before. */
int supervisor_resolve(struct supervisor *supervisor, const char *uuid, bool committed,
	const char *who, struct fault *fault);

/* Migration `uuid`, which this host sends, tries again now what it waits to try again.
 * UUID_INVALID, OPERATION_NOT_ALLOWED. */
int supervisor_resume(
	struct supervisor *supervisor, const char *uuid, const char *who, struct fault *fault);

/* Bytes a second for migration `uuid`, which this host sends, from now on; 0: unlimited. It holds
 * over a restart. UUID_INVALID, OPERATION_NOT_ALLOWED when it has ended or is received here. */
int supervisor_set_bandwidth(struct supervisor *supervisor, const char *uuid,
	uint64_t bytes_per_sec, struct fault *fault);

/* Peer.*: called by the sender with its migration session. Each is idempotent. `session` is the ref
 * that authorised the call: it is bound to the first migration it names. */
int supervisor_peer_prepare(struct supervisor *supervisor, const char *session,
	const char *migration, const struct value *manifest, struct value **ret_result,
	struct fault *fault);
int supervisor_peer_renew(struct supervisor *supervisor, const char *session, const char *migration,
	struct value **ret_result, struct fault *fault);
int supervisor_peer_digest(struct supervisor *supervisor, const char *session,
	const char *migration, int64_t disk, int64_t span, struct value **ret_result,
	struct fault *fault);
/* extents: "offset length offset length ..." in decimal, at most PASS_MAX_EXTENTS of them.
 * *ret_result {digests}: hex, DIGEST_BYTES each, zeros for an extent of zeros. */
int supervisor_peer_digest_extents(struct supervisor *supervisor, const char *session,
	const char *migration, int64_t disk, const char *extents, struct value **ret_result,
	struct fault *fault);
/* Starts the QEMU that takes the guest's memory, and opens a door for it: *ret_result {port, door,
 * secret}. Called again it begins anew. Only for a live migration in RECEIVING. */
int supervisor_peer_incoming(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault);
/* manifest: {vm, metrics, vbds, vifs} as they are by now; empty: as in Peer.prepare. */
int supervisor_peer_seal(struct supervisor *supervisor, const char *session, const char *migration,
	const struct value *manifest, struct value **ret_result, struct fault *fault);
/* *ret_result {decision, vm or error}; live and committed also {resumed, resume_usec: from the call
 * to the guest's first instruction, if this call made it run}. */
int supervisor_peer_commit(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault);
int supervisor_peer_abort(struct supervisor *supervisor, const char *session, const char *migration,
	const char *reason, struct value **ret_result, struct fault *fault);
int supervisor_peer_status(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault);
int supervisor_peer_finish(struct supervisor *supervisor, const char *session,
	const char *migration, struct value **ret_result, struct fault *fault);

#endif
