/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM may be asked to do now. */
#ifndef FERRY_AGENT_API_VM_OPERATIONS_H
#define FERRY_AGENT_API_VM_OPERATIONS_H

#include "base/fault.h"
#include "schema/pool_db.h"

/* Writes VM.allowed_operations if it is not what follows from the VM's other fields. */
int vm_update_allowed_operations(struct pool_db *pool, const char *vm, struct fault *fault);
/* The same for all VMs: at start, and after a migration. */
void vm_update_all_allowed_operations(struct pool_db *pool);

/* Whether the operation may begin on a halted VM, in contract 2.6.1's order: OPERATION_BLOCKED [vm,
 * reason], VM_BAD_POWER_STATE [vm, expected, actual], OTHER_OPERATION_IN_PROGRESS [VM, vm,
 * operations, tasks]. */
int vm_check_operation(
	struct pool_db *pool, const char *vm, const char *operation, struct fault *fault);
/* Only that no operation runs on it: OTHER_OPERATION_IN_PROGRESS. */
int vm_check_idle(struct pool_db *pool, const char *vm, struct fault *fault);

#endif
