/* SPDX-License-Identifier: Apache-2.0 */
/* From a VM's XenAPI objects to what its guest consists of. */
#ifndef FERRY_AGENT_VM_GUEST_RECORD_H
#define FERRY_AGENT_VM_GUEST_RECORD_H

#include "agent/guest/guest_spec.h"
#include "agent/storage/storage.h"
#include "base/fault.h"

/* Fills *ret_spec (GUEST_SPEC_INIT; cleared by the caller in any case) but for run_dir, paused and
 * incoming. Blocks on the databases and on the disks' file systems. VM_MEMORY_SIZE_TOO_LOW [vm],
 * VDI_MISSING [sr, vdi], VM_REQUIRES_NETWORK [vm, network] (a bridge is wanted),
 * OPERATION_NOT_ALLOWED [text] (a device that a guest cannot have), INVALID_VALUE [field, value and
 * why]. */
int guest_record_read(const struct storage *storage, const char *vm, struct guest_spec *ret_spec,
	struct fault *fault);

/* The same without a look at the disks' files, which need not be there yet. */
int guest_record_check(const struct storage *storage, const char *vm, struct guest_spec *ret_spec,
	struct fault *fault);

#endif
