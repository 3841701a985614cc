/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory and how many CPUs a VM may have: XenAPI's rules among its limits. */
#ifndef FERRY_AGENT_API_VM_LIMITS_H
#define FERRY_AGENT_API_VM_LIMITS_H

#include "base/fault.h"
#include "base/value.h"

/* Limits that were left out of a new VM's fields follow from those that were given. */
void vm_limits_fill(struct value *fields);
/* static_min <= dynamic_min <= dynamic_max <= static_max: MEMORY_CONSTRAINT_VIOLATION_ORDER; 1 <=
 * VCPUs_at_startup <= VCPUs_max, and nothing negative: INVALID_VALUE [field, value]. */
int vm_limits_check(const struct value *fields, struct fault *fault);

#endif
