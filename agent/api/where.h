/* SPDX-License-Identifier: Apache-2.0 */
/* The expressions of get_all_where and get_all_records_where (contract 1.4):
 *
 *	expr   = term { "or" term }          term   = factor { "and" factor }
 *	factor = "not" factor | "(" expr ")" | "true" | "false" | 'field "name" = "value"'
 *
 * A name is a field, or "map__key" for an entry of a map. Values compare as text; a bool is "true"
 * or "false". */
#ifndef FERRY_AGENT_API_WHERE_H
#define FERRY_AGENT_API_WHERE_H

#include "base/fault.h"
#include "base/value.h"
#include "schema/classes.h"

/* Those of records (struct ref -> record) for which the expression is true. -EINVAL: INTERNAL_ERROR
 * saying where it cannot be read, or INVALID_VALUE ["field", name] for a field the class lacks. */
int where_select(const struct class *class, const char *expression, const struct value *records,
	struct value **ret_records, struct fault *fault);

#endif
