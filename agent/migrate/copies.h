/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of disks: a VDI, or a VM with all its disks, becomes another one (clone, copy), is kept as
 * it is (snapshot), or becomes what its snapshot is (revert). Nobody writes to them meanwhile, but
 * for a snapshot: there a guest may run on (copies_guest.c).
 *
 *	row "copy" -> marks -> new files -> copied -> all rows of pool.db in one transaction
 *	           -> files that no VDI names removed -> marks -> no row
 *
 * An image has to stand alone, so each is a copy of all its data; where the file system can share
 * blocks it does. A copy that a crash cut off before the transaction is undone; after it, it is
 * whole. */
#ifndef FERRY_AGENT_MIGRATE_COPIES_H
#define FERRY_AGENT_MIGRATE_COPIES_H

#include "agent/migrate/supervisor.h"

struct copies_request {
	const char *operation;       /* "clone", "copy", "snapshot"; of a VM also "revert" */
	const char *vm;              /* ref; NULL: a disk alone */
	const char *vdi;             /* ref of that disk */
	const char *name;            /* of the new VM; NULL: none is made */
	const char *sr;              /* for all disks; NULL: each stays in its own */
	const struct value *ignored; /* of a VM's snapshot: refs of VDIs to be left out; or NULL */
	const char *task;            /* ref: key of the marks, and told of the progress */
	struct cancel *cancel;
	const struct cancel *stop; /* the daemon's: the copy is undone */
};

/* Blocks until it is done; the caller frees *ret_ref: of the new VDI or VM, of a revert the VM that
 * was reverted. After an error everything is as it was. HANDLE_INVALID, VDI_IN_USE [vdi, op],
 * SR_NOT_ATTACHED [sr], VDI_MISSING [sr, vdi], SR_BACKEND_FAILURE_44, TASK_CANCELLED [task]; of a
 * VM what vm_check_operation says; of a guest that runs a text: it ended, or writes faster than can
 * be copied. */
int copies_run(const struct supervisor_params *params, const struct copies_request *request,
	char **ret_ref, struct fault *fault);
/* Once, at the daemon's start. What cannot be settled now is logged, and stays until the next. */
int copies_recover(const struct supervisor_params *params, struct fault *fault);
/* The same for one row of the journal, whose task is known to have ended. */
int copies_settle_row(const struct supervisor_params *params, const struct resource_row *row,
	struct fault *fault);

#endif
