/* SPDX-License-Identifier: Apache-2.0 */
/* What vdi_move.c (the move), vdi_move_guest.c (of a guest that runs) and vdi_move_settle.c (its
 * end) share. */
#ifndef FERRY_AGENT_MIGRATE_VDI_MOVE_INTERNAL_H
#define FERRY_AGENT_MIGRATE_VDI_MOVE_INTERNAL_H

#include "agent/copy/file_copy.h"
#include "agent/guest/dirty.h"
#include "agent/guest/guest_node.h"
#include "agent/migrate/vdi_move.h"
#include "agent/storage/move.h"
#include "agent/vm/guests.h"

#define VDI_MOVE_KIND         "vdi-move" /* of resources; the name is the VDI's ref */
#define VDI_MOVE_VDI_MARK     "mirror"
#define VDI_MOVE_VM_OPERATION "migrate_send"

struct vdi_move {
	const struct supervisor_params *params;
	char *uuid; /* owner of its resources */
	char *vdi;
	char *key;         /* of the marks: the task */
	char *vm;          /* whose guest runs on the disk; "": none */
	struct value *vms; /* refs of all that have it */
	struct storage_move files;
	char *node; /* of the guest's disk; "": the guest has not been looked at */
	uint64_t disk_bytes;
	bool stops; /* the guest is, or is about to be, stopped by the move */
	/* Of a move that runs. */
	uint64_t stopped_usec;
	struct cancel *cancel;
	const struct cancel *stop;
	struct rate_limit *rate;
	struct file_copy *copy;
	uint64_t copied_bytes;
	struct resident *resident;
	struct guest_node guest_node;
	struct dirty *dirty;
};

/* Stores it as it is now: the row is made, or changed. */
int vdi_move_store(struct vdi_move *move, struct fault *fault);
void vdi_move_clear(struct vdi_move *move);

/* Holds the guest, starts to track its writes, and gives its QEMU the new file. */
int vdi_move_guest_begin(struct vdi_move *move, struct fault *fault);
/* After the bulk copy: what the guest wrote meanwhile, until little is left. */
int vdi_move_guest_follow(struct vdi_move *move, struct fault *fault);
/* Stops the guest and copies the rest. */
int vdi_move_guest_stop(struct vdi_move *move, struct fault *fault);
/* After the commit: the stopped guest's disk is the new file. */
int vdi_move_guest_switch(struct vdi_move *move, struct fault *fault);
/* The guest is on the file that the VDI names, runs, and has nothing of the move. */
int vdi_move_guest_settle(
	struct vdi_move *move, struct guest *guest, const char *path, struct fault *fault);
struct dirty *vdi_move_guest_tracking(const struct vdi_move *move, struct guest *guest);

/* Makes guest, files, marks and row agree with the VDI. */
int vdi_move_settle(struct vdi_move *move, struct fault *fault);
/* Whether the VDI is in the new SR. */
int vdi_move_is_committed(const struct vdi_move *move, bool *ret_is_committed, struct fault *fault);

#define CLEANUP_VDI_MOVE CLEANUP(vdi_move_clear)

#endif
