/* SPDX-License-Identifier: Apache-2.0 */
/* Fields that a newer pool sent with an object and that this program has not: kept with the object
 * as they came, and sent on with it. A field that this program has is never among them, neither
 * when they are kept nor when they are sent; nor is one that names other objects, as its refs mean
 * nothing here. */
#ifndef FERRY_AGENT_MIGRATE_UNKNOWN_H
#define FERRY_AGENT_MIGRATE_UNKNOWN_H

#include "schema/pool_db.h"

/* Keeps those among `sent`, which may be no struct. ids: a struct whose members are what other
 * objects are called in the same document; NULL: they have refs. INTERNAL_ERROR: a name that is no
 * field's, values too deep, or more than UNKNOWN_MAX_BYTES. Inside a transaction of the caller. */
int unknown_keep(struct pool_db *pool, const char *class, const char *ref, const struct value *sent,
	const struct value *ids, struct fault *fault);
/* Adds what is kept to fields that are about to be sent. */
int unknown_add(struct pool_db *pool, const char *class, const char *ref, struct value *fields,
	struct fault *fault);
/* What is kept of one object is kept of the other, and nothing else. */
int unknown_copy(struct pool_db *pool, const char *class, const char *from, const char *to,
	struct fault *fault);

#endif
