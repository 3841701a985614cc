/* SPDX-License-Identifier: Apache-2.0 */
/* Adding what another pool had: first the objects, then what they refer to. */
#include "agent/pool/bundle.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "schema/classes.h"

#include <errno.h>
#include <string.h>

static bool is_reference(const struct class_field *field)
{
	return field->type == FIELD_REF || field->type == FIELD_SET_REF;
}

/* Datetimes come back from JSON as text. */
static int take_value(const struct class_field *field, const struct value *value,
	struct value **ret_value, struct fault *fault)
{
	int64_t seconds;

	if (field->type != FIELD_DATETIME || value->type != VALUE_STRING) {
		*ret_value = value_copy(value);
		return 0;
	}
	int r = datetime_parse(value->string, &seconds);
	if (r < 0)
		return fault_set(fault, r, "INVALID_VALUE", field->name, value->string, NULL);
	*ret_value = value_new_datetime(seconds);
	return 0;
}

static int make(struct pool_db *pool, const struct class *class, const char *ref,
	const struct value *record, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	int r = 0;

	for (size_t i = 0; r == 0 && i < class->n_fields; i++) {
		const struct class_field *field = &class->fields[i];
		const struct value *value = value_find(record, field->name);
		struct value *taken = NULL;
		if (!value || field->type == FIELD_DERIVED || is_reference(field))
			continue;
		r = take_value(field, value, &taken, fault);
		if (r == 0)
			value_set(fields, field->name, taken);
	}
	const char *unknown = value_find_string(record, BUNDLE_UNKNOWN, NULL);
	if (r == 0)
		r = object_restore(pool, class->name, ref, fields, fault);
	return r < 0 || !unknown ? r : object_set_unknown(pool, class->name, ref, unknown, fault);
}

/* What a reference is to be: NULL when its target did not come along. */
static const char *follow(const struct class_field *field, const char *ref,
	const struct value *bundle, const struct value *map)
{
	const char *there = map ? value_find_string(map, ref, NULL) : NULL;

	if (there)
		return there;
	return value_find(value_find(bundle, field->of), ref) ? ref : NULL;
}

static void add_reference(struct value *fields, const struct class_field *field,
	const struct value *value, const struct value *bundle, const struct value *map)
{
	const char *ref;

	if (value->type == VALUE_STRING) {
		ref = follow(field, value->string, bundle, map);
		if (ref)
			value_set_string(fields, field->name, ref);
		return;
	}
	struct value *refs = value_new_array();
	for (size_t i = 0; value->type == VALUE_ARRAY && i < value->array.n_items; i++) {
		ref = follow(field, value_string(value->array.items[i], ""), bundle, map);
		if (ref)
			value_append_string(refs, ref);
	}
	value_set(fields, field->name, refs);
}

static int connect_ends(struct pool_db *pool, const struct class *class, const char *ref,
	const struct value *record, const struct value *bundle, const struct value *map,
	struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();

	for (size_t i = 0; i < class->n_fields; i++) {
		const struct class_field *field = &class->fields[i];
		const struct value *value = value_find(record, field->name);
		if (value && is_reference(field) && class_find(field->of))
			add_reference(fields, field, value, bundle, map);
	}
	return fields->record.n_members ? object_set_fields(pool, class->name, ref, fields, fault)
					: 0;
}

static int check_form(const struct value *bundle, struct fault *fault)
{
	for (size_t i = 0; i < bundle->record.n_members; i++) {
		const struct value_member *class = &bundle->record.members[i];
		if (!class_find(class->name) || class->value->type != VALUE_STRUCT)
			return fault_text(fault, -EBADMSG,
				"the other host sent objects of class \"%s\", which this program "
				"does not know",
				class->name);
		for (size_t j = 0; j < class->value->record.n_members; j++)
			if (class->value->record.members[j].value->type != VALUE_STRUCT)
				return fault_text(
					fault, -EBADMSG, "the other host sent no records");
	}
	return 0;
}

typedef int (*each_fn)(struct pool_db *pool, const struct class *class, const char *ref,
	const struct value *record, const struct value *bundle, const struct value *map,
	struct fault *fault);

static int make_one(struct pool_db *pool, const struct class *class, const char *ref,
	const struct value *record, const struct value *bundle, const struct value *map,
	struct fault *fault)
{
	(void)bundle;
	(void)map;
	return make(pool, class, ref, record, fault);
}

static int for_each(struct pool_db *pool, const struct value *bundle, const struct value *map,
	each_fn fn, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; i < bundle->record.n_members; i++) {
		const struct value_member *class = &bundle->record.members[i];
		for (size_t j = 0; r == 0 && j < class->value->record.n_members; j++) {
			const struct value_member *object = &class->value->record.members[j];
			if (!map || !value_find(map, object->name))
				r = fn(pool, class_find(class->name), object->name, object->value,
					bundle, map, fault);
		}
	}
	return r;
}

int bundle_import(struct pool_db *pool, const struct value *bundle, const struct value *map,
	struct fault *fault)
{
	if (bundle->type != VALUE_STRUCT)
		return fault_text(fault, -EBADMSG, "the other host sent no objects");
	int r = check_form(bundle, fault);
	if (r == 0)
		r = for_each(pool, bundle, map, make_one, fault);
	return r < 0 ? r : for_each(pool, bundle, map, connect_ends, fault);
}

/* --- Networks ----------------------------------------------------------------------------------
 */

/* The network of the host's management interface; NULL when it has none. */
static const char *management_network(const struct value *pifs, const char *host)
{
	for (size_t i = 0; pifs && i < pifs->record.n_members; i++) {
		const struct value *pif = pifs->record.members[i].value;
		if (value_find_bool(pif, "management", false) &&
			strcmp(value_find_string(pif, "host", ""), host) == 0)
			return value_find_string(pif, "network", NULL);
	}
	return NULL;
}

static bool is_same_network(const struct value *a, const struct value *b)
{
	return strcmp(value_find_string(a, "bridge", ""), value_find_string(b, "bridge", "")) ==
		       0 &&
	       strcmp(value_find_string(a, "name_label", ""),
		       value_find_string(b, "name_label", "")) == 0;
}

static void map_network(
	struct value *map, const struct value_member *network, const struct value *there)
{
	for (size_t i = 0; i < there->record.n_members; i++) {
		if (!is_same_network(network->value, there->record.members[i].value))
			continue;
		value_set_string(map, network->name, there->record.members[i].name);
		return;
	}
}

int bundle_map_networks(struct pool_db *pool, const struct value *bundle, const char *coordinator,
	struct value **ret_map, struct fault *fault)
{
	struct value *map CLEANUP_VALUE = value_new_struct();
	struct value *there CLEANUP_VALUE = NULL;
	struct value *pifs CLEANUP_VALUE = NULL;
	const struct value *networks = value_find(bundle, "network");
	int r = object_get_all_records(pool, "network", &there, fault);

	if (r == 0)
		r = object_get_all_records(pool, "PIF", &pifs, fault);
	if (r < 0)
		return r;
	const char *host = bundle_host(bundle);
	const char *theirs = host ? management_network(value_find(bundle, "PIF"), host) : NULL;
	const char *ours = management_network(pifs, coordinator);
	for (size_t i = 0;
		networks && networks->type == VALUE_STRUCT && i < networks->record.n_members; i++) {
		const struct value_member *network = &networks->record.members[i];
		if (theirs && ours && strcmp(network->name, theirs) == 0)
			value_set_string(map, network->name, ours);
		else
			map_network(map, network, there);
	}
	*ret_map = TAKE_PTR(map);
	return 0;
}
