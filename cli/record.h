/* SPDX-License-Identifier: Apache-2.0 */
/* XenAPI records as they come over XML-RPC, where ints are bare decimal text. */
#ifndef FERRY_CLI_RECORD_H
#define FERRY_CLI_RECORD_H

#include "base/value.h"

#include <stdbool.h>
#include <stdint.h>

int64_t record_int(const struct value *record, const char *field, int64_t fallback);
double record_double(const struct value *record, const char *field, double fallback);

/* Whether XenAPI's field of that name is an int. */
bool record_is_int_field(const char *field);

/* For --json: a copy with "ref" as first member, and int fields as numbers. */
struct value *record_for_json(const char *ref, const struct value *record);

#endif
