/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/roles.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "schema/classes.h"

#include <errno.h>
#include <string.h>

static const char *const names[N_USER_ROLES] = {
	[USER_POOL_ADMIN] = "pool-admin",
	[USER_POOL_OPERATOR] = "pool-operator",
	[USER_VM_POWER_ADMIN] = "vm-power-admin",
	[USER_VM_ADMIN] = "vm-admin",
	[USER_VM_OPERATOR] = "vm-operator",
	[USER_READ_ONLY] = "read-only",
};

const char *role_name(enum user_role role)
{
	return names[role];
}

int role_parse(const char *text, enum user_role *ret_role, struct fault *fault)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], text) != 0)
			continue;
		*ret_role = (enum user_role)i;
		return 0;
	}
	char *shown CLEANUP_FREE = xasprintf("%s (allowed: pool-admin, pool-operator, "
					     "vm-power-admin, vm-admin, vm-operator, read-only)",
		text);
	return fault_set(fault, -EINVAL, "INVALID_VALUE", "role", shown, NULL);
}

enum user_role role_of_writers(const struct class *class)
{
	static const char *const of_vms[] = {"VM", "VBD", "VDI", "VIF", "network"};

	if (strcmp(class->name, "task") == 0)
		return USER_VM_OPERATOR;
	for (size_t i = 0; i < ARRAY_SIZE(of_vms); i++)
		if (strcmp(class->name, of_vms[i]) == 0)
			return USER_VM_ADMIN;
	return USER_POOL_OPERATOR;
}
