/* SPDX-License-Identifier: Apache-2.0 */
/* The files and rows of a VDI that moves to another SR of this host, or is copied. The files are in
 * the journal under the move, so that after its end, whichever it was, storage_recover(owner) keeps
 * those that a VDI names and removes the others. */
#ifndef FERRY_AGENT_STORAGE_MOVE_H
#define FERRY_AGENT_STORAGE_MOVE_H

#include "agent/storage/storage.h"

struct storage_place {
	char *sr;
	char *location;
	char *path;
};

struct storage_move {
	const char *owner;
	const char *vdi;
	struct storage_place from;
	struct storage_place to;
	uint64_t file_bytes; /* length of the file */
	uint64_t data_bytes; /* what it has allocated */
	uint64_t disk_bytes; /* the new one is an image of its own; 0: it is the old file's copy */
};

void storage_move_clear(struct storage_move *move);
/* Finds the VDI's file, and names the one in the SR; changes nothing. SR_NOT_ATTACHED [SR] when
 * either is not plugged in here, VDI_MISSING [SR, VDI]. */
int storage_move_plan(const struct storage *storage, const char *owner, const char *vdi,
	const char *sr, struct storage_move *ret_move, struct fault *fault);
/* Makes the new file, as long as the old one and all zeros. SR_BACKEND_FAILURE_44 when the SR has
 * no room, SR_BACKEND_FAILURE_43 when that file is there. */
int storage_move_prepare(
	const struct storage *storage, const struct storage_move *move, struct fault *fault);
/* The VDI is in the new SR, or (back) in the old one, when this returns 0. -EBUSY with
 * OTHER_OPERATION_IN_PROGRESS when it is in neither place. */
int storage_move_commit(const struct storage *storage, const struct storage_move *move, bool back,
	struct fault *fault);

/* As storage_move_plan, for a file that another VDI is to have. */
int storage_copy_plan(const struct storage *storage, const char *owner, const char *vdi,
	const char *sr, struct storage_move *ret_move, struct fault *fault);
/* The file cannot be copied as it is, as a guest has it: the new one will be an empty image of the
 * same format, for a disk of the same size. */
int storage_copy_plan_image(struct storage_move *move, struct fault *fault);
/* As storage_move_prepare, for the new file alone; need_bytes of room are asked for. Repeating it
 * is fine. */
int storage_copy_prepare(const struct storage *storage, const struct storage_move *move,
	uint64_t need_bytes, struct fault *fault);
/* Makes the VDI of the new file, with those fields and what follows from the file; inside the
 * transaction of the caller, who frees *ret_vdi. */
int storage_copy_insert(struct pool_db *pool, const struct storage_move *move, struct value *fields,
	char **ret_vdi, struct fault *fault);
/* A VDI of the same SR has the new file instead of its own, which the caller has journalled. */
int storage_copy_replace(struct pool_db *pool, const struct storage_move *move, const char *vdi,
	struct fault *fault);

#define CLEANUP_STORAGE_MOVE CLEANUP(storage_move_clear)

#endif
