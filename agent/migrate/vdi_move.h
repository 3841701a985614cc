/* SPDX-License-Identifier: Apache-2.0 */
/* A VDI moves to another SR of this host. The VMs that have it stay; a guest that runs goes on
 * with the same QEMU and stops only for the last of its writes.
 *
 *	row "vdi-move" -> marks -> new file -> copy (-> guest stopped) -> the VDI names the new file
 *	               -> guest on the new file, runs -> old file removed -> marks -> no row
 *
 * What the database says of the VDI decides: wherever it stops, vdi_move_settle makes the guest and
 * the files agree with it. Nothing is resumed: a move that a crash cut off before the switch is
 * undone. */
#ifndef FERRY_AGENT_MIGRATE_VDI_MOVE_H
#define FERRY_AGENT_MIGRATE_VDI_MOVE_H

#include "agent/migrate/supervisor.h"

struct vdi_move_request {
	const char *vdi;
	const char *sr;
	const char *task; /* ref: key of the marks, and told of the progress */
	struct cancel *cancel;
	const struct cancel *stop; /* the daemon's: the move is undone */
};

/* Blocks until it is done. After an error everything is as it was. HANDLE_INVALID,
 * OPERATION_NOT_ALLOWED [text] (the same SR, a snapshot, a running guest's image that is not raw),
 * OTHER_OPERATION_IN_PROGRESS of the VDI or a VM, VDI_IN_USE [vdi, op], SR_NOT_ATTACHED [sr],
 * SR_BACKEND_FAILURE_44 and what vm_check_operation says of "migrate_send"; TASK_CANCELLED [task].
 */
int vdi_move_run(const struct supervisor_params *params, const struct vdi_move_request *request,
	struct fault *fault);
/* Once, at the daemon's start, after guests_recover. What cannot be settled now is logged, and
 * stays as it is until the next start. */
int vdi_move_recover(const struct supervisor_params *params, struct fault *fault);
/* The same for one row of the journal, whose task is known to have ended. */
int vdi_move_settle_row(const struct supervisor_params *params, const struct resource_row *row,
	struct fault *fault);

#endif
