/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's objects as one: the VM, its metrics and its devices. */
#ifndef FERRY_AGENT_VM_OBJECT_H
#define FERRY_AGENT_VM_OBJECT_H

#include "base/fault.h"
#include "schema/pool_db.h"

/* Makes VM_metrics and the VM that names it, with its allowed operations; inside a transaction of
 * the caller. Sets members of both structs. The caller frees *ret_vm. */
int vm_object_create(struct pool_db *pool, struct value *vm_fields, struct value *metrics_fields,
	char **ret_vm, struct fault *fault);

/* Removes the VM with its VBDs, VIFs, consoles and metrics; its disks stay. Inside a transaction of
 * the caller, who has checked that it may go. */
int vm_object_destroy(struct pool_db *pool, const char *vm, struct fault *fault);

/* A random address that is locally administered and unicast (IEEE 802, U/L and I/G bits). The
 * caller frees it. */
char *vm_object_new_mac(void);

#endif
