/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of class host that have to do with leaving a host; their rows are in host.c. */
#ifndef FERRY_AGENT_API_EVACUATE_H
#define FERRY_AGENT_API_EVACUATE_H

#include "xmlrpc/dispatch.h"

/* CANNOT_EVACUATE_HOST ["CODE,parameter,...|CODE,..."], an error for each VM that cannot leave. */
int host_assert_can_evacuate(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault);
/* Map of those VMs to their errors. */
int host_get_vms_which_prevent_evacuation(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault);
/* Disables the host and moves them all; blocks. */
int host_evacuate(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault);

#endif
