/* SPDX-License-Identifier: Apache-2.0 */
/* Checks and converts one parameter of a call; private to the dispatcher. */
#ifndef FERRY_XMLRPC_PARAMS_H
#define FERRY_XMLRPC_PARAMS_H

#include "xmlrpc/dispatch.h"

/* Brings *value to the parameter's type where the contract allows a conversion (a number as text).
 * `position` counts from 1, the session included, and is for the message. -EINVAL with
 * FIELD_TYPE_ERROR [parameter, explanation]. */
int param_convert(const struct method *method, size_t index, size_t position, struct value **value,
	struct fault *fault);

#endif
