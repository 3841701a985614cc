/* SPDX-License-Identifier: Apache-2.0 */
/* The methods that the class list implies: get_all, get_record, get_by_uuid, get_<field>,
 * set_<field>, add_to_<field> ... Generated once; the rows live as long as this object. */
#ifndef FERRY_AGENT_API_ACCESSORS_H
#define FERRY_AGENT_API_ACCESSORS_H

#include "schema/classes.h"
#include "xmlrpc/dispatch.h"

#include <stdbool.h>

struct accessors;

/* is_taken: whether a row of that name was written by hand, which then stands. */
struct accessors *accessors_new(bool (*is_taken)(void *arg, const char *name), void *arg);
struct accessors *accessors_free(struct accessors *accessors);
/* Owned by accessors. */
const struct method *accessors_rows(const struct accessors *accessors, size_t *ret_n);
/* The field's type as XenAPI writes it ("VM ref set"); the caller frees it. */
char *accessors_field_type(const struct class *class, const struct class_field *field);
/* Whether the row was generated for a single field. */
bool accessors_is_field_row(const struct method *method);

#endif
