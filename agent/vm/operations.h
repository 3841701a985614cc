/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM may be asked to do now, and that it is being done. Each call may be part of a caller's
 * transaction, and is to be where several of them must agree. */
#ifndef FERRY_AGENT_VM_OPERATIONS_H
#define FERRY_AGENT_VM_OPERATIONS_H

#include "base/fault.h"
#include "schema/pool_db.h"

/* Writes VM.allowed_operations if it is not what follows from the VM's other fields. */
int vm_update_allowed_operations(struct pool_db *pool, const char *vm, struct fault *fault);

/* The mark of a VM that is being made what its snapshot is; the snapshot's is "revert". */
#define VM_REVERTING "reverting"

/* Whether the operation may begin, in contract 2.6.1's order: OPERATION_BLOCKED [vm, reason],
 * VM_BAD_POWER_STATE [vm, expected, actual], OTHER_OPERATION_IN_PROGRESS [VM, vm, operations,
 * tasks], VM_IS_TEMPLATE [vm, operation], VM_IS_SNAPSHOT [vm, operation], OPERATION_NOT_ALLOWED
 * [text]. */
int vm_check_operation(
	struct pool_db *pool, const char *vm, const char *operation, struct fault *fault);
/* Whether its devices and limits may change: only while it is halted and no operation runs on it,
 * as there is no hotplug. VM_BAD_POWER_STATE, OTHER_OPERATION_IN_PROGRESS. */
int vm_check_changeable(struct pool_db *pool, const char *vm, struct fault *fault);
/* Whether no operation runs on it: OTHER_OPERATION_IN_PROGRESS. */
int vm_check_idle(struct pool_db *pool, const char *vm, struct fault *fault);
/* Whether no running VM may write to the disk: VDI_IN_USE [vdi, operation]. */
int vm_check_disk_still(
	struct pool_db *pool, const char *vdi, const char *operation, struct fault *fault);
/* Whether it is one of those that a guest's life consists of (start, pause, clean_shutdown ...):
 * their marks do not outlive the agent that set them. */
bool vm_operation_is_a_guests(const char *operation);
/* Whether it copies disks (clone, copy, snapshot, revert). */
bool vm_operation_is_a_copy(const char *operation);

/* Marks that the operation runs, under a key (a task's ref), and takes the mark away. Both are
 * idempotent and keep allowed_operations true; forgetting the mark of a VM that is gone is fine. */
int vm_ensure_operation(struct pool_db *pool, const char *vm, const char *key,
	const char *operation, struct fault *fault);
int vm_forget_operation(struct pool_db *pool, const char *vm, const char *key, struct fault *fault);
/* Whether one of its marks is of what stops its guest for a moment by itself: a migration, a
 * snapshot. */
bool vm_may_be_stopped(struct pool_db *pool, const char *vm);
/* Whether that mark is there. */
bool vm_has_operation(struct pool_db *pool, const char *vm, const char *key);

#endif
