/* SPDX-License-Identifier: Apache-2.0 */
/* Value trees as JSON text: documents in the databases, --json output, JSON-RPC and QMP. The one
 * place that sees the JSON library; see docs/adr/0001-values-in-base.md. */
#ifndef FERRY_BASE_JSON_H
#define FERRY_BASE_JSON_H

#include "base/buf.h"
#include "base/fault.h"
#include "base/value.h"

#include <stddef.h>

struct json_limits {
	size_t max_depth;
	size_t max_values;
};

/* Compact, UTF-8, members in order. I4 as a number, datetimes as "20260821T02:00:23Z", nil as null.
 */
void json_encode(const struct value *value, struct buf *out);
/* Two spaces a level, for people and --json. */
void json_encode_pretty(const struct value *value, struct buf *out);

/* Strings, ints, doubles, bools, arrays, structs and nil. Strict: one value, no duplicate names, no
 * bytes after it, no NUL in strings. limits may be NULL. -EBADMSG with a fault saying where and
 * what. */
int json_decode(const void *data, size_t length, const struct json_limits *limits,
	struct value **ret_value, struct fault *fault);

#endif
