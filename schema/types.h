/* SPDX-License-Identifier: Apache-2.0 */
/* Ids, extents, roles and states that more than one layer names. Data only. */
#ifndef FERRY_SCHEMA_TYPES_H
#define FERRY_SCHEMA_TYPES_H

#include <stdint.h>

/* Bytes within one disk; both are multiples of 512. */
struct extent {
	uint64_t offset;
	uint64_t length;
};

enum migration_role { ROLE_SENDER, ROLE_RECEIVER };

/* States of both roles, in the order of a migration; see docs/states.md. The text is what is stored
 * and shown. */
#define MIGRATION_STATES(X)                                                                        \
	X(NEW)                                                                                     \
	X(PREPARING)                                                                               \
	X(ALLOCATING)                                                                              \
	X(COPYING)                                                                                 \
	X(RECEIVING)                                                                               \
	X(CONVERGING)                                                                              \
	X(SWITCHING)                                                                               \
	X(SEALED)                                                                                  \
	X(HANDOVER)                                                                                \
	X(COMMITTING)                                                                              \
	X(COMMITTED)                                                                               \
	X(FINISHING)                                                                               \
	X(ABORTING)                                                                                \
	X(DONE)                                                                                    \
	X(CANCELLED)                                                                               \
	X(FAILED)

enum migration_state {
#define X(name) STATE_##name,
	MIGRATION_STATES(X)
#undef X
		N_STATES
};

/* "COPYING"; the names are the stored form. */
const char *migration_state_name(enum migration_state state);
/* -EINVAL for an unknown name. */
int migration_state_parse(const char *name, enum migration_state *ret_state);
const char *migration_role_name(enum migration_role role); /* "sender", "receiver" */

#endif
