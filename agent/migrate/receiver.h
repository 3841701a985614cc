/* SPDX-License-Identifier: Apache-2.0 */
/* What the receiving states do. All are idempotent, so that a restart re-enters them; all but
 * receiver_check, receiver_digest* and receiver_incoming_status are called inside
 * migration_enter. They block on files, tgtd, QEMU and the databases.
 *
 * The receiver's document: "session" (ref that authorises the sender), "live", "manifest" (what the
 * sender said), "disks" (array of {sr, uuid, location, path, size, fields, device, inode}),
 * "generation" of the exports, "vm" once committed, "resumed" (live). */
#ifndef FERRY_AGENT_MIGRATE_RECEIVER_H
#define FERRY_AGENT_MIGRATE_RECEIVER_H

#include "agent/migrate/migration.h"

/* Would this host take the VM? The checks of contract 2.6.2 that belong to the destination:
 * protocol, pool, host, uuid, SRs, space, networks, and the import itself, tried and undone.
 * Changes nothing. */
int receiver_check(
	const struct supervisor_params *params, const struct value *manifest, struct fault *fault);

/* The receiver's own list of the disks of a manifest that receiver_check has passed: sizes as ints,
 * uuids that are taken replaced. */
struct value *receiver_plan_disks(
	const struct supervisor_params *params, const struct value *manifest);

/* ALLOCATING: makes the disks and the exports, then moves to RECEIVING. A failure aborts the
 * migration, durably. */
int receiver_allocate(struct migration *migration, struct fault *fault);

/* RECEIVING: *ret_exports is what the sender needs to log in, an array in the order of the disks.
 * Exports that are gone (tgtd died, the daemon restarted, the lease ran out) are made again under a
 * new generation, of the same files: -ESTALE when one was replaced. */
int receiver_exports(struct migration *migration, struct value **ret_exports, struct fault *fault);

/* Stops tgtd, and with it the exports; the disks stay, and so does a QEMU. */
int receiver_withdraw(struct migration *migration, struct fault *fault);

/* Digests of one span of a disk, in hex; "" when it is all zero. */
int receiver_digest(struct migration *migration, int64_t disk, int64_t span,
	struct value **ret_result, struct fault *fault);

/* Digests of extents of a disk, "offset length offset length ...", in hex. */
int receiver_digest_extents(struct migration *migration, int64_t disk, const char *extents,
	struct value **ret_result, struct fault *fault);

/* RECEIVING, live: starts the QEMU that takes the guest's memory, in place of an earlier one, and
 * opens its door: *ret_result {port, door, secret}. */
int receiver_incoming(struct migration *migration, struct value **ret_result, struct fault *fault);
/* Live: sets "incoming" of the result: "none", "waiting", "complete" (it has the memory) or "dead",
 * with "incoming_end", why. Does not block. */
void receiver_incoming_status(struct migration *migration, struct value *result);
/* After the agent's start: what became of the QEMU. In SEALED it may have the whole memory, and
 * stays; before that its stream is broken, and it is ended. */
int receiver_recover_incoming(struct migration *migration, struct fault *fault);
/* Whether a QEMU may still be there that could run the guest. */
bool receiver_may_run(struct migration *migration);
/* The sender is silent: exports and QEMU go, the disks stay. */
void receiver_suspend(struct migration *migration);

/* RECEIVING -> SEALED. manifest: the VM as it is by now (vm, metrics, vbds, vifs), with the devices
 * that it had; empty: as it was. -EINVAL with nothing changed when it is none of that. Any other
 * failure aborts the migration, durably: after a flush that failed, one that
 * succeeds proves nothing. */
int receiver_seal(struct migration *migration, const struct value *manifest, struct fault *fault);

/* SEALED -> COMMITTED; live: the guest runs here, or its VM is halted as its QEMU has died
 * ("resumed" in the document). When the memory is not complete, or the import is impossible, the
 * migration is aborted, durably, with the cause in the fault. Another failure: not yet, ask again.
 * In COMMITTED it makes sure that the pool's database says so. */
int receiver_commit(struct migration *migration, struct fault *fault);

/* At the agent's start, before its guests are recovered, when the database is one that may not know
 * what was done last: what this host has committed is committed in it too. What cannot be is
 * logged. params: storage and guests. */
int receiver_redo(const struct supervisor_params *params, struct fault *fault);

/* COMMITTED -> DONE: drops what is left of the move; one that is exposed (safeguard.h) stays
 * COMMITTED. -EINVAL in any other state. */
int receiver_finish(struct migration *migration, struct fault *fault);

/* Any state before the commit -> ABORTING -> FAILED or CANCELLED: nothing is left. why: the event
 * that leads to ABORTING. -EALREADY with a fault when it is committed. In ABORTING it goes on with
 * the removal. */
int receiver_abort(struct migration *migration, enum migration_event why, struct fault *fault);
/* After a failure that trying again cannot mend: keeps it as the migration's error and aborts. What
 * cannot be removed now is left in ABORTING, to go on with. Returns error. */
int receiver_give_up(struct migration *migration, int error, const struct fault *fault);
/* -EINVAL with a fault: a call that has no place in this state, a late one or one out of order. */
int receiver_refuse(struct migration *migration, const char *call, struct fault *fault);

#endif
