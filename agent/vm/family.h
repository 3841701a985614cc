/* SPDX-License-Identifier: Apache-2.0 */
/* A VM and the snapshots that were taken of it. */
#ifndef FERRY_AGENT_VM_FAMILY_H
#define FERRY_AGENT_VM_FAMILY_H

#include "schema/pool_db.h"

#include <stdbool.h>

/* *ret_snapshots: array of refs, to be freed. */
int vm_list_snapshots(
	struct pool_db *pool, const char *vm, struct value **ret_snapshots, struct fault *fault);

/* Whether `other` is the VM itself or a snapshot of it. */
bool vm_is_family(struct pool_db *pool, const char *vm, const char *other);

/* Appends the VDIs that its VBDs have as disks: those that are not in `vdis` yet. */
int vm_add_disks(struct pool_db *pool, const char *vm, struct value *vdis, struct fault *fault);
/* Of a snapshot, also the one of its memory, if it has one. */
int vm_add_snapshot_disks(
	struct pool_db *pool, const char *snapshot, struct value *vdis, struct fault *fault);

#endif
