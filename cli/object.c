/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/object.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/uuid.h"
#include "cli/errors.h"

#include <errno.h>
#include <string.h>

void object_clear(struct object *object)
{
	free(object->ref);
	value_free(object->record);
	*object = (struct object)OBJECT_INIT;
}

const char *object_string(const struct object *object, const char *field)
{
	return value_find_string(object->record, field, "");
}

char *object_title(const struct value *record)
{
	const char *name = value_find_string(record, "name_label", "");
	const char *uuid = value_find_string(record, "uuid", "?");

	return *name ? xasprintf("\"%s\" (%s)", name, uuid) : xstrdup(uuid);
}

int object_load(struct session *session, const char *class, const char *ref, struct object *object,
	struct fault *fault)
{
	char *method CLEANUP_FREE = xasprintf("%s.get_record", class);
	struct value *record CLEANUP_VALUE = NULL;
	int r = session_call(session, &record, fault, method, value_new_string(ref), NULL);

	if (r < 0)
		return r;
	if (record->type != VALUE_STRUCT)
		return cli_fail(fault, -EBADMSG, "%s answered %s with no record",
			session_url(session), method);
	object_clear(object);
	object->ref = xstrdup(ref);
	object->record = TAKE_PTR(record);
	return 0;
}

static int find_by_uuid(struct session *session, const char *class, const char *uuid,
	struct object *object, struct fault *fault)
{
	char *method CLEANUP_FREE = xasprintf("%s.get_by_uuid", class);
	struct value *ref CLEANUP_VALUE = NULL;
	int r = session_call(session, &ref, fault, method, value_new_string(uuid), NULL);

	if (r < 0)
		return r;
	return object_load(session, class, value_string(ref, ""), object, fault);
}

/* Several objects have the name: say how to tell them apart. */
static int ambiguous(struct session *session, const char *class, const char *name,
	const struct value *refs, struct fault *fault)
{
	struct buf list CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < refs->array.n_items; i++) {
		struct object one CLEANUP_OBJECT = OBJECT_INIT;
		const char *ref = value_string(refs->array.items[i], "");
		if (object_load(session, class, ref, &one, NULL) < 0)
			continue;
		buf_printf(&list, "\n       %s  %s", object_string(&one, "uuid"),
			object_string(&one, "name_description"));
	}
	return cli_fail(fault, -ENOTUNIQ,
		"%zu objects of class %s are called \"%s\"; name one by "
		"its uuid:%s",
		refs->array.n_items, class, name, list.data ? list.data : "");
}

static int find_by_name(struct session *session, const char *class, const char *name,
	struct object *object, struct fault *fault)
{
	char *method CLEANUP_FREE = xasprintf("%s.get_by_name_label", class);
	struct value *refs CLEANUP_VALUE = NULL;
	int r = session_call(session, &refs, fault, method, value_new_string(name), NULL);

	if (r < 0)
		return r;
	if (refs->type != VALUE_ARRAY)
		return cli_fail(fault, -EBADMSG, "%s answered %s with no list",
			session_url(session), method);
	if (refs->array.n_items == 0)
		return cli_fail(fault, -ENOENT, "%s has no %s called \"%s\"", session_url(session),
			class, name);
	if (refs->array.n_items > 1)
		return ambiguous(session, class, name, refs, fault);
	return object_load(session, class, value_string(refs->array.items[0], ""), object, fault);
}

static bool has_name(const char *class)
{
	return strcmp(class, "VBD") != 0 && strcmp(class, "VIF") != 0;
}

int object_find(struct session *session, const char *class, const char *name, struct object *object,
	struct fault *fault)
{
	if (strncmp(name, REF_PREFIX, strlen(REF_PREFIX)) == 0)
		return object_load(session, class, name, object, fault);
	if (uuid_is_valid(name))
		return find_by_uuid(session, class, name, object, fault);
	if (!*name)
		return cli_usage(fault, "the name of a %s is empty", class);
	if (!has_name(class))
		return cli_usage(
			fault, "a %s has no name: \"%s\" must be a uuid or a ref", class, name);
	return find_by_name(session, class, name, object, fault);
}
