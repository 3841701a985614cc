/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/unknown.h"

#include "base/alloc.h"
#include "base/uuid.h"
#include "schema/classes.h"
#include "xmlrpc/codec.h"

#include <errno.h>
#include <string.h>

#define MAX_NAME 64
/* Arrays and structs in each other. Readers of what is sent on have limits too. */
#define MAX_DEPTH  8
#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

/* A member of a manifest's VBDs, not of the class. */
#define MANIFEST_DISK "disk"

static bool is_foreign_ref(const char *text, const struct value *ids)
{
	if (ref_is_null(text))
		return false;
	return strncmp(text, REF_PREFIX, strlen(REF_PREFIX)) == 0 || value_find(ids, text);
}

static bool names_object(const struct value *value, const struct value *ids)
{
	bool names = value->type == VALUE_STRING && is_foreign_ref(value->string, ids);

	for (size_t i = 0; value->type == VALUE_ARRAY && i < value->array.n_items && !names; i++)
		names = names_object(value->array.items[i], ids);
	for (size_t i = 0; value->type == VALUE_STRUCT && i < value->record.n_members && !names;
		i++)
		names = is_foreign_ref(value->record.members[i].name, ids) ||
			names_object(value->record.members[i].value, ids);
	return names;
}

static bool is_deeper(const struct value *value, unsigned depth)
{
	bool is = (value->type == VALUE_ARRAY || value->type == VALUE_STRUCT) && depth == 0;

	for (size_t i = 0; value->type == VALUE_ARRAY && i < value->array.n_items && !is; i++)
		is = is_deeper(value->array.items[i], depth - 1);
	for (size_t i = 0; value->type == VALUE_STRUCT && i < value->record.n_members && !is; i++)
		is = is_deeper(value->record.members[i].value, depth - 1);
	return is;
}

static int check_member(const struct value_member *member, struct fault *fault)
{
	const char *name = member->name;
	size_t length = strlen(name);
	bool is_name = length > 0 && length <= MAX_NAME && strspn(name, NAME_CHARS) == length;

	if (is_name && is_deeper(member->value, MAX_DEPTH))
		return fault_text(fault, -EINVAL,
			"%s, which is not known here, has sets and maps more than %d deep", name,
			MAX_DEPTH);
	if (is_name)
		return 0;
	return fault_text(fault, -EINVAL,
		"\"%.*s\" is no name of a field (allowed: 1 to %d letters, digits and _)", MAX_NAME,
		name, MAX_NAME);
}

int unknown_keep(struct pool_db *pool, const char *class, const char *ref, const struct value *sent,
	const struct value *ids, struct fault *fault)
{
	struct value *kept CLEANUP_VALUE = value_new_struct();
	int r = 0;

	if (!sent || sent->type != VALUE_STRUCT)
		return 0;
	for (size_t i = 0; r == 0 && i < sent->record.n_members; i++) {
		const struct value_member *member = &sent->record.members[i];
		if (class_has_field(class_find(class), member->name) ||
			strcmp(member->name, MANIFEST_DISK) == 0)
			continue;
		r = check_member(member, fault);
		if (r == 0 && !names_object(member->value, ids))
			value_set(kept, member->name, value_copy(member->value));
	}
	if (r < 0 || kept->record.n_members == 0)
		return r;
	char *text CLEANUP_FREE = xml_encode_fragment(kept);
	return object_set_unknown(pool, class, ref, text, fault);
}

int unknown_add(struct pool_db *pool, const char *class, const char *ref, struct value *fields,
	struct fault *fault)
{
	const struct codec_limits limits = {.max_bytes = UNKNOWN_MAX_BYTES,
		.max_depth = codec_limits_response.max_depth,
		.max_values = UNKNOWN_MAX_BYTES};
	struct value *kept CLEANUP_VALUE = NULL;
	char *text CLEANUP_FREE = NULL;
	int r = object_get_unknown(pool, class, ref, &text, fault);

	if (r < 0 || !text)
		return r;
	r = xml_decode_fragment(text, strlen(text), &limits, &kept, fault);
	for (size_t i = 0; r == 0 && kept->type == VALUE_STRUCT && i < kept->record.n_members;
		i++) {
		const struct value_member *member = &kept->record.members[i];
		if (!class_has_field(class_find(class), member->name) &&
			!value_find(fields, member->name))
			value_set(fields, member->name, value_copy(member->value));
	}
	return r;
}

int unknown_copy(struct pool_db *pool, const char *class, const char *from, const char *to,
	struct fault *fault)
{
	char *text CLEANUP_FREE = NULL;
	int r = object_get_unknown(pool, class, from, &text, fault);

	return r < 0 ? r : object_set_unknown(pool, class, to, text, fault);
}
