/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the receiver share: receiver.c (disks, exports), receiver_digest.c,
 * receiver_seal.c, receiver_incoming.c (the QEMU of a live move), receiver_decision.c,
 * receiver_check.c and receiver_trial.c (preflight). */
#ifndef FERRY_AGENT_MIGRATE_RECEIVER_INTERNAL_H
#define FERRY_AGENT_MIGRATE_RECEIVER_INTERNAL_H

#include "agent/guest/guest_spec.h"
#include "agent/migrate/receiver.h"

/* Could the VM of the manifest be imported with those disks? IMPORT_ERROR [text]. */
int receiver_try_import(const struct supervisor_params *params, const struct value *manifest,
	const struct value *disks, struct fault *fault);
/* The same, and what its guest would be: faults of guest_record_read, which name the VM by its
 * uuid. with_files: the disks are there. The caller clears *ret_spec in any case. */
int receiver_try_guest(const struct supervisor_params *params, const struct value *manifest,
	const struct value *disks, bool with_files, struct guest_spec *ret_spec,
	struct fault *fault);

/* Of a manifest: its member `name` is an array of so many structs as a VM may have devices. */
int receiver_check_list(const struct value *manifest, const char *name, struct fault *fault);
/* Of the manifest's snapshots, if it has any: each is one, and has what a VM has. */
int receiver_check_snapshots(const struct value *manifest, struct fault *fault);
int receiver_check_size(const struct value *manifest, struct fault *fault);

/* The part of the seal that a guest's pause need not wait for: disks that it does not write to,
 * which are whole by now. They are exported again with the others when the sender asks for that. */
int receiver_settle_still(struct migration *migration, struct fault *fault);
/* SEALED, live: waits for the whole memory, at most 10 s. */
int receiver_await_memory(struct migration *migration, struct fault *fault);
/* Ends the QEMU that waits, and closes its door: it is dead when this returns 0. Nothing for a VM
 * that moves halted. */
int receiver_end_incoming(struct migration *migration, struct fault *fault);
/* Nothing more comes through to tgtd. Fine when it is closed. */
void receiver_close_disk_door(struct migration *migration);
/* The guest is not this migration's any more: nothing more comes through its door. */
void receiver_close_door(struct migration *migration);

#endif
