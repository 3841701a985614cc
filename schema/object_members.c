/* SPDX-License-Identifier: Apache-2.0 */
/* One key of a map, one item of a set: read the field, edit it, write it back, in one transaction.
 */
#include "base/uuid.h"
#include "schema/pool_private.h"

#include <errno.h>
#include <string.h>

struct edit {
	const char *class;
	const char *ref;
	const char *field;
	const char *key;   /* or the item of a set */
	const char *value; /* of the key */
};

typedef int (*edit_fn)(
	struct pool_db *pool, struct value *value, const struct edit *edit, struct fault *fault);

static int check_type(const struct value *value, enum value_type type, const struct edit *edit,
	struct fault *fault)
{
	if (value->type == type)
		return 0;
	return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", edit->field, NULL);
}

static int edit_locked(
	struct pool_db *pool, const struct edit *edit, edit_fn apply, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = NULL;

	int r = object_get_field(pool, edit->class, edit->ref, edit->field, &value, fault);
	if (r == 0)
		r = apply(pool, value, edit, fault);
	if (r < 0)
		return r;
	return object_set_field(pool, edit->class, edit->ref, edit->field, value, fault);
}

static int edit_field(
	struct pool_db *pool, const struct edit *edit, edit_fn apply, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, edit_locked(pool, edit, apply, fault), fault);
}

static int apply_map_set(
	struct pool_db *pool, struct value *map, const struct edit *edit, struct fault *fault)
{
	(void)pool;
	int r = check_type(map, VALUE_STRUCT, edit, fault);
	if (r == 0)
		value_set_string(map, edit->key, edit->value);
	return r;
}

static int apply_map_add(
	struct pool_db *pool, struct value *map, const struct edit *edit, struct fault *fault)
{
	struct value *uuid CLEANUP_VALUE = NULL;

	if (!value_find(map, edit->key))
		return apply_map_set(pool, map, edit, fault);
	int r = object_get_field(pool, edit->class, edit->ref, "uuid", &uuid, fault);
	if (r < 0)
		return r;
	return fault_set(fault, -EEXIST, "MAP_DUPLICATE_KEY", edit->class, edit->field,
		uuid->string, edit->key, NULL);
}

static int apply_map_remove(
	struct pool_db *pool, struct value *map, const struct edit *edit, struct fault *fault)
{
	(void)pool;
	int r = check_type(map, VALUE_STRUCT, edit, fault);
	if (r == 0)
		value_unset(map, edit->key);
	return r;
}

static int apply_set_add(
	struct pool_db *pool, struct value *set, const struct edit *edit, struct fault *fault)
{
	(void)pool;
	int r = check_type(set, VALUE_ARRAY, edit, fault);
	if (r == 0 && !value_contains_string(set, edit->key))
		value_append_string(set, edit->key);
	return r;
}

static int apply_set_remove(
	struct pool_db *pool, struct value *set, const struct edit *edit, struct fault *fault)
{
	(void)pool;
	int r = check_type(set, VALUE_ARRAY, edit, fault);
	if (r < 0)
		return r;
	size_t n = 0;
	for (size_t i = 0; i < set->array.n_items; i++) {
		struct value *item = set->array.items[i];
		if (strcmp(value_string(item, ""), edit->key) == 0)
			value_free(item);
		else
			set->array.items[n++] = item;
	}
	set->array.n_items = n;
	return 0;
}

int object_map_add(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const char *key, const char *value, struct fault *fault)
{
	const struct edit edit = {class, ref, field, key, value};

	return edit_field(pool, &edit, apply_map_add, fault);
}

int object_map_set(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const char *key, const char *value, struct fault *fault)
{
	const struct edit edit = {class, ref, field, key, value};

	return edit_field(pool, &edit, apply_map_set, fault);
}

int object_map_remove(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const char *key, struct fault *fault)
{
	const struct edit edit = {class, ref, field, key, NULL};

	return edit_field(pool, &edit, apply_map_remove, fault);
}

int object_set_add(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const char *item, struct fault *fault)
{
	const struct edit edit = {class, ref, field, item, NULL};

	return edit_field(pool, &edit, apply_set_add, fault);
}

int object_set_remove(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const char *item, struct fault *fault)
{
	const struct edit edit = {class, ref, field, item, NULL};

	return edit_field(pool, &edit, apply_set_remove, fault);
}
