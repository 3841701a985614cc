/* SPDX-License-Identifier: Apache-2.0 */
#include "schema/types.h"

#include <errno.h>
#include <string.h>

static const char *const state_names[N_STATES] = {
#define X(name) [STATE_##name] = #name,
	MIGRATION_STATES(X)
#undef X
};

const char *migration_state_name(enum migration_state state)
{
	return state < N_STATES ? state_names[state] : "?";
}

int migration_state_parse(const char *name, enum migration_state *ret_state)
{
	for (unsigned i = 0; i < N_STATES; i++) {
		if (strcmp(state_names[i], name) != 0)
			continue;
		*ret_state = (enum migration_state)i;
		return 0;
	}
	return -EINVAL;
}

const char *migration_role_name(enum migration_role role)
{
	return role == ROLE_SENDER ? "sender" : "receiver";
}
