/* SPDX-License-Identifier: Apache-2.0 */
/* The struct given to Class.create: what may be set is taken out of it and brought to the types of
 * the class list. */
#ifndef FERRY_AGENT_API_RECORD_H
#define FERRY_AGENT_API_RECORD_H

#include "base/fault.h"
#include "base/value.h"
#include "schema/pool_db.h"

/* *ret_fields: the members of `given` that are CTOR or RW fields of the class. Others are passed
 * over, as XenAPI does: clients create from records that they read before. Ints, floats and
 * datetimes may come as text. FIELD_TYPE_ERROR [field] for another type; INVALID_VALUE [field,
 * value] for text that is none; HANDLE_INVALID [class, ref] for a ref to nothing. */
int record_take(struct pool_db *pool, const char *class, const struct value *given,
	struct value **ret_fields, struct fault *fault);

/* The field must be there and, if a ref, not null: FIELD_TYPE_ERROR [field], HANDLE_INVALID. */
int record_require(
	const char *class, const struct value *fields, const char *field, struct fault *fault);

#endif
