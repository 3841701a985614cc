/* SPDX-License-Identifier: Apache-2.0 */
/* What users may do: XenAPI's static roles. Each may do all that those after it may. A method's row
 * names the least role that may call it; one that names none is for pool-admins only. */
#ifndef FERRY_AGENT_API_ROLES_H
#define FERRY_AGENT_API_ROLES_H

#include "base/fault.h"

struct class;

enum user_role {
	USER_POOL_ADMIN,     /* everything; the only ones that manage users */
	USER_POOL_OPERATOR,  /* hosts, storage, pools, everybody's tasks */
	USER_VM_POWER_ADMIN, /* moves VMs, pauses them, chooses where they start */
	USER_VM_ADMIN,       /* makes, changes and removes VMs, disks and networks */
	USER_VM_OPERATOR,    /* starts, stops and reboots VMs */
	USER_READ_ONLY,      /* looks, logs out, works with tasks of its own */
	N_USER_ROLES,
};

const char *role_name(enum user_role role);
/* -EINVAL with INVALID_VALUE ["role", text], naming those that there are. */
int role_parse(const char *text, enum user_role *ret_role, struct fault *fault);
/* Whom the generated setters of the class are for. */
enum user_role role_of_writers(const struct class *class);

#endif
