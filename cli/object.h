/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the object that a user names: by uuid, by OpaqueRef, or by a name label that only one
 * object has. */
#ifndef FERRY_CLI_OBJECT_H
#define FERRY_CLI_OBJECT_H

#include "base/fault.h"
#include "base/value.h"
#include "cli/session.h"

/* An object that was found. */
struct object {
	char *ref;
	struct value *record;
};

#define OBJECT_INIT                                                                                \
	{                                                                                          \
		0                                                                                  \
	}

/* class as XenAPI spells it. An ambiguous name is an error that lists the candidates. */
int object_find(struct session *session, const char *class, const char *name, struct object *object,
	struct fault *fault);
/* By ref. */
int object_load(struct session *session, const char *class, const char *ref, struct object *object,
	struct fault *fault);
void object_clear(struct object *object);

/* The field as text; "" when it is none. */
const char *object_string(const struct object *object, const char *field);

/* `"web" (uuid)`, or the uuid alone when there is no name. The caller frees it. */
char *object_title(const struct value *record);

#define CLEANUP_OBJECT CLEANUP(object_clear)

#endif
