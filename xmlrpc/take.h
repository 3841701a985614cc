/* SPDX-License-Identifier: Apache-2.0 */
/* Moves a value out of the tree it stands in; private to this layer. */
#ifndef FERRY_XMLRPC_TAKE_H
#define FERRY_XMLRPC_TAKE_H

#include "base/value.h"

/* The content as a value of its own; what stays in the tree is nil. The caller frees it. */
static inline struct value *take_content(struct value *value)
{
	struct value *taken = value_new_nil();
	struct value nil = *taken;

	*taken = *value;
	*value = nil;
	return taken;
}

#endif
