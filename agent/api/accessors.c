/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/accessors.h"

#include "agent/api/context.h"
#include "agent/api/where.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a generated row works on: method->data. */
struct accessor {
	struct accessor *next;
	const struct class *class;
	const struct class_field *field; /* NULL: the whole object */
	char *name;
	char *result;
	char *doc;
	char *self_doc;
	char *value_doc;
	struct param params[3];
};

struct accessors {
	struct accessor *first; /* owns names and parameters of the rows */
	struct method *rows;
	size_t n_rows;
	bool (*is_taken)(void *arg, const char *name);
	void *arg;
};

/* --- Handlers ----------------------------------------------------------------------------------
 */

static const struct accessor *accessor_of(struct call *call)
{
	return call_method(call)->data;
}

static int get_all(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)args;
	return object_get_all(
		api_of(call)->pool, accessor_of(call)->class->name, ret_result, fault);
}

static int get_all_records(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)args;
	return object_get_all_records(
		api_of(call)->pool, accessor_of(call)->class->name, ret_result, fault);
}

static int get_all_records_where(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct value *all CLEANUP_VALUE = NULL;
	int r = object_get_all_records(
		api_of(call)->pool, accessor_of(call)->class->name, &all, fault);

	if (r == 0)
		r = where_select(
			accessor_of(call)->class, arg_text(args, 0), all, ret_result, fault);
	return r;
}

static int get_all_where(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct value *records CLEANUP_VALUE = NULL;
	int r = get_all_records_where(call, args, &records, fault);

	if (!records)
		return r;
	*ret_result = value_new_array();
	for (size_t i = 0; i < records->record.n_members; i++)
		value_append_string(*ret_result, records->record.members[i].name);
	return 0;
}

static int get_record(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	return object_get_record(api_of(call)->pool, accessor_of(call)->class->name,
		arg_text(args, 0), ret_result, fault);
}

static int get_by_uuid(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;
	int r = object_get_by_uuid(
		api_of(call)->pool, accessor_of(call)->class->name, arg_text(args, 0), &ref, fault);

	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

static int get_by_name_label(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	return object_get_by_name_label(api_of(call)->pool, accessor_of(call)->class->name,
		arg_text(args, 0), ret_result, fault);
}

static int get_field(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct accessor *accessor = accessor_of(call);

	return object_get_field(api_of(call)->pool, accessor->class->name, arg_text(args, 0),
		accessor->field->name, ret_result, fault);
}

/* What the VM may be asked follows from fields that clients set (a template, blocked operations).
 */
static int field_written(struct call *call, const char *ref, int r, struct fault *fault)
{
	if (r < 0 || strcmp(accessor_of(call)->class->name, "VM") != 0)
		return r;
	return vm_update_allowed_operations(api_of(call)->pool, ref, fault);
}

static int set_field(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct accessor *accessor = accessor_of(call);
	struct pool_db *pool = api_of(call)->pool;
	const char *ref = arg_text(args, 0);

	(void)ret_result;
	int r = object_check(pool, accessor->class->name, ref, fault);
	if (r < 0)
		return r;
	if (accessor->field->type == FIELD_REF && !ref_is_null(arg_text(args, 1)) &&
		class_find(accessor->field->of) &&
		!object_exists(pool, accessor->field->of, arg_text(args, 1)))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", accessor->field->of,
			arg_text(args, 1), NULL);
	return field_written(call, ref,
		object_set_field(
			pool, accessor->class->name, ref, accessor->field->name, args[1], fault),
		fault);
}

static int add_to_map(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct accessor *accessor = accessor_of(call);

	(void)ret_result;
	return field_written(call, arg_text(args, 0),
		object_map_add(api_of(call)->pool, accessor->class->name, arg_text(args, 0),
			accessor->field->name, arg_text(args, 1), arg_text(args, 2), fault),
		fault);
}

static int remove_from_map(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct accessor *accessor = accessor_of(call);

	(void)ret_result;
	return field_written(call, arg_text(args, 0),
		object_map_remove(api_of(call)->pool, accessor->class->name, arg_text(args, 0),
			accessor->field->name, arg_text(args, 1), fault),
		fault);
}

static int add_to_set(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct accessor *accessor = accessor_of(call);

	(void)ret_result;
	return object_set_add(api_of(call)->pool, accessor->class->name, arg_text(args, 0),
		accessor->field->name, arg_text(args, 1), fault);
}

static int remove_from_set(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct accessor *accessor = accessor_of(call);

	(void)ret_result;
	return object_set_remove(api_of(call)->pool, accessor->class->name, arg_text(args, 0),
		accessor->field->name, arg_text(args, 1), fault);
}

/* --- Generation --------------------------------------------------------------------------------
 */

/* The parameters of a generated row. */
enum shape {
	SHAPE_NONE,
	SHAPE_TEXT,      /* one string, not a ref: the uuid, the label, the expression */
	SHAPE_SELF,      /* self */
	SHAPE_SELF_SET,  /* self, value of the field's type */
	SHAPE_SELF_ITEM, /* self, value: one string */
	SHAPE_SELF_KEY,  /* self, key */
	SHAPE_SELF_PAIR, /* self, key, value */
};

static enum param_type field_param_type(const struct class_field *field)
{
	switch (field->type) {
	case FIELD_INT:
		return PARAM_INT;
	case FIELD_BOOL:
		return PARAM_BOOL;
	case FIELD_FLOAT:
		return PARAM_DOUBLE;
	case FIELD_DATETIME:
		return PARAM_DATETIME;
	case FIELD_SET_STRING:
	case FIELD_SET_REF:
	case FIELD_DERIVED:
		return PARAM_SET;
	case FIELD_SET_INT:
		return PARAM_ARRAY;
	case FIELD_MAP:
		return PARAM_MAP;
	case FIELD_MAP_ANY:
		return PARAM_STRUCT;
	case FIELD_STRING:
	case FIELD_ENUM:
	case FIELD_REF:
		break;
	}
	return PARAM_STRING;
}

char *accessors_field_type(const struct class *class, const struct class_field *field)
{
	switch (field->type) {
	case FIELD_INT:
		return xstrdup("int");
	case FIELD_BOOL:
		return xstrdup("bool");
	case FIELD_FLOAT:
		return xstrdup("float");
	case FIELD_DATETIME:
		return xstrdup("datetime");
	case FIELD_ENUM:
		return xasprintf("enum %s_%s", class->name, field->name);
	case FIELD_REF:
		return xasprintf("%s ref", field->of);
	case FIELD_SET_STRING:
		return xstrdup("string set");
	case FIELD_SET_INT:
		return xstrdup("int set");
	case FIELD_SET_REF:
		return xasprintf("%s ref set", field->of);
	case FIELD_DERIVED:
		return xasprintf("%.*s ref set", (int)strcspn(field->of, "."), field->of);
	case FIELD_MAP:
		return xstrdup("(string -> string) map");
	case FIELD_MAP_ANY:
		return xstrdup("map");
	case FIELD_STRING:
		break;
	}
	return xstrdup("string");
}

static void param_set(struct method *row, struct accessor *accessor, const char *name,
	enum param_type type, const char *doc)
{
	accessor->params[row->n_params++] = (struct param){name, type, doc};
	row->n_mandatory = row->n_params;
}

static void row_set_params(
	struct method *row, struct accessor *accessor, enum shape shape, const char *text_name)
{
	row->params = accessor->params;
	if (shape == SHAPE_NONE)
		return;
	if (shape == SHAPE_TEXT) {
		param_set(row, accessor, text_name, PARAM_STRING, NULL);
		return;
	}
	param_set(row, accessor, "self", PARAM_STRING, accessor->self_doc);
	if (shape == SHAPE_SELF_SET)
		param_set(row, accessor, "value", field_param_type(accessor->field),
			accessor->value_doc);
	if (shape == SHAPE_SELF_KEY || shape == SHAPE_SELF_PAIR)
		param_set(row, accessor, "key", PARAM_STRING, NULL);
	if (shape == SHAPE_SELF_ITEM || shape == SHAPE_SELF_PAIR)
		param_set(row, accessor, "value", PARAM_STRING, NULL);
}

/* What one generated row is made of. */
struct recipe {
	const struct class *class;
	const struct class_field *field;
	method_handler handle;
	enum shape shape;
	const char *text_name; /* SHAPE_TEXT */
	enum user_role role;
};

static void accessor_free(struct accessor *accessor)
{
	free(accessor->name);
	free(accessor->result);
	free(accessor->doc);
	free(accessor->self_doc);
	free(accessor->value_doc);
	free(accessor);
}

/* Adds a row; takes name, result and doc over. */
static void row_add(struct accessors *accessors, const struct recipe *recipe, char *name,
	char *result, char *doc)
{
	struct accessor *accessor = xcalloc(1, sizeof(*accessor));
	struct method *row;

	accessor->class = recipe->class;
	accessor->field = recipe->field;
	accessor->name = name;
	accessor->result = result;
	accessor->doc = doc;
	if (accessors->is_taken(accessors->arg, name)) {
		accessor_free(accessor);
		return;
	}
	accessor->self_doc = xasprintf("%s ref", recipe->class->name);
	if (recipe->field)
		accessor->value_doc = accessors_field_type(recipe->class, recipe->field);
	accessor->next = accessors->first;
	accessors->first = accessor;
	accessors->rows =
		xrealloc(accessors->rows, accessors->n_rows + 1, sizeof(*accessors->rows));
	row = &accessors->rows[accessors->n_rows++];
	*row = (struct method){
		.name = name,
		.role = recipe->role,
		.handle = recipe->handle,
		.result = result,
		.doc = doc,
		.data = accessor,
	};
	row_set_params(row, accessor, recipe->shape, recipe->text_name);
}

static void add_class(struct accessors *accessors, const struct class *class)
{
	const char *name = class->name;
	struct recipe recipe = {class, NULL, get_record, SHAPE_SELF, NULL, USER_READ_ONLY};

	row_add(accessors, &recipe, xasprintf("%s.get_record", name), xasprintf("%s record", name),
		xstrdup("All fields."));
	if (class->hidden)
		return;
	recipe.handle = get_all;
	recipe.shape = SHAPE_NONE;
	row_add(accessors, &recipe, xasprintf("%s.get_all", name), xasprintf("%s ref set", name),
		xstrdup("All objects of the class."));
	recipe.handle = get_all_records;
	row_add(accessors, &recipe, xasprintf("%s.get_all_records", name),
		xasprintf("(%s ref -> %s record) map", name, name),
		xstrdup("All objects with their fields."));
	recipe = (struct recipe){
		class, NULL, get_all_records_where, SHAPE_TEXT, "expr", USER_READ_ONLY};
	row_add(accessors, &recipe, xasprintf("%s.get_all_records_where", name),
		xasprintf("(%s ref -> %s record) map", name, name),
		xstrdup("The objects for which the expression is true, with their fields."));
	recipe.handle = get_all_where;
	row_add(accessors, &recipe, xasprintf("%s.get_all_where", name),
		xasprintf("%s ref set", name),
		xstrdup("The objects for which the expression is true."));
	recipe = (struct recipe){class, NULL, get_by_uuid, SHAPE_TEXT, "uuid", USER_READ_ONLY};
	row_add(accessors, &recipe, xasprintf("%s.get_by_uuid", name), xasprintf("%s ref", name),
		xstrdup("The object with that uuid."));
	if (!class_has_field(class, "name_label"))
		return;
	recipe = (struct recipe){
		class, NULL, get_by_name_label, SHAPE_TEXT, "label", USER_READ_ONLY};
	row_add(accessors, &recipe, xasprintf("%s.get_by_name_label", name),
		xasprintf("%s ref set", name), xstrdup("The objects with that name."));
}

static void add_field_writers(
	struct accessors *accessors, const struct class *class, const struct class_field *field)
{
	enum user_role role = role_of_writers(class);
	struct recipe set = {class, field, set_field, SHAPE_SELF_SET, NULL, role};
	struct recipe map_add = {class, field, add_to_map, SHAPE_SELF_PAIR, NULL, role};
	struct recipe map_remove = {class, field, remove_from_map, SHAPE_SELF_KEY, NULL, role};
	struct recipe set_add = {class, field, add_to_set, SHAPE_SELF_ITEM, NULL, role};
	struct recipe set_remove = {class, field, remove_from_set, SHAPE_SELF_ITEM, NULL, role};
	const char *c = class->name;
	const char *f = field->name;

	row_add(accessors, &set, xasprintf("%s.set_%s", c, f), xstrdup("void"),
		xasprintf("Sets %s.", f));
	if (field->type == FIELD_MAP) {
		row_add(accessors, &map_add, xasprintf("%s.add_to_%s", c, f), xstrdup("void"),
			xasprintf("Adds a key to %s; MAP_DUPLICATE_KEY when it is there.", f));
		row_add(accessors, &map_remove, xasprintf("%s.remove_from_%s", c, f),
			xstrdup("void"), xasprintf("Removes a key from %s, if it is there.", f));
	}
	if (field->type == FIELD_SET_STRING) {
		row_add(accessors, &set_add, xasprintf("%s.add_%s", c, f), xstrdup("void"),
			xasprintf("Adds a word to %s, unless it is there.", f));
		row_add(accessors, &set_remove, xasprintf("%s.remove_%s", c, f), xstrdup("void"),
			xasprintf("Removes a word from %s, if it is there.", f));
	}
}

static void add_field(
	struct accessors *accessors, const struct class *class, const struct class_field *field)
{
	struct recipe get = {class, field, get_field, SHAPE_SELF, NULL, USER_READ_ONLY};

	row_add(accessors, &get, xasprintf("%s.get_%s", class->name, field->name),
		accessors_field_type(class, field), xasprintf("Reads %s.", field->name));
	/* A session's other_config says what the session may do: not for its user to set. */
	if (field->access == FIELD_RW && !class->hidden)
		add_field_writers(accessors, class, field);
}

struct accessors *accessors_new(bool (*is_taken)(void *arg, const char *name), void *arg)
{
	struct accessors *accessors = xcalloc(1, sizeof(*accessors));

	accessors->is_taken = is_taken;
	accessors->arg = arg;
	for (size_t i = 0; i < n_classes; i++) {
		add_class(accessors, &classes[i]);
		for (size_t j = 0; j < classes[i].n_fields; j++)
			add_field(accessors, &classes[i], &classes[i].fields[j]);
	}
	return accessors;
}

struct accessors *accessors_free(struct accessors *accessors)
{
	if (!accessors)
		return NULL;
	while (accessors->first) {
		struct accessor *next = accessors->first->next;
		accessor_free(accessors->first);
		accessors->first = next;
	}
	free(accessors->rows);
	free(accessors);
	return NULL;
}

const struct method *accessors_rows(const struct accessors *accessors, size_t *ret_n)
{
	*ret_n = accessors->n_rows;
	return accessors->rows;
}

bool accessors_is_field_row(const struct method *method)
{
	static const method_handler handlers[] = {
		get_field, set_field, add_to_map, remove_from_map, add_to_set, remove_from_set};

	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (method->handle == handlers[i])
			return true;
	}
	return false;
}
