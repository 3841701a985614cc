/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/record.h"

#include "base/parse.h"
#include "base/uuid.h"
#include "schema/classes.h"

#include <errno.h>
#include <string.h>

static int wrong_type(const struct class_field *field, struct fault *fault)
{
	return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", field->name, NULL);
}

static int wrong_value(const struct class_field *field, const char *text, struct fault *fault)
{
	return fault_set(fault, -EINVAL, "INVALID_VALUE", field->name, text, NULL);
}

static int take_int(const struct class_field *field, const struct value *given,
	struct value **ret_value, struct fault *fault)
{
	int64_t integer;

	if (given->type == VALUE_INT || given->type == VALUE_I4) {
		*ret_value = value_new_int(given->integer);
		return 0;
	}
	if (given->type != VALUE_STRING)
		return wrong_type(field, fault);
	if (parse_int64(given->string, &integer) < 0)
		return wrong_value(field, given->string, fault);
	*ret_value = value_new_int(integer);
	return 0;
}

static int take_float(const struct class_field *field, const struct value *given,
	struct value **ret_value, struct fault *fault)
{
	double real;

	if (given->type == VALUE_DOUBLE) {
		*ret_value = value_copy(given);
		return 0;
	}
	if (given->type == VALUE_INT || given->type == VALUE_I4) {
		*ret_value = value_new_double((double)given->integer);
		return 0;
	}
	if (given->type != VALUE_STRING)
		return wrong_type(field, fault);
	if (parse_double(given->string, &real) < 0)
		return wrong_value(field, given->string, fault);
	*ret_value = value_new_double(real);
	return 0;
}

static int take_datetime(const struct class_field *field, const struct value *given,
	struct value **ret_value, struct fault *fault)
{
	int64_t seconds;

	if (given->type == VALUE_DATETIME) {
		*ret_value = value_copy(given);
		return 0;
	}
	if (given->type != VALUE_STRING)
		return wrong_type(field, fault);
	if (datetime_parse(given->string, &seconds) < 0)
		return wrong_value(field, given->string, fault);
	*ret_value = value_new_datetime(seconds);
	return 0;
}

static int take_ref(struct pool_db *pool, const struct class_field *field,
	const struct value *given, struct value **ret_value, struct fault *fault)
{
	const char *ref = value_string(given, NULL);

	if (!ref)
		return wrong_type(field, fault);
	if (ref_is_null(ref))
		ref = REF_NULL;
	else if (class_find(field->of) && !object_exists(pool, field->of, ref))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", field->of, ref, NULL);
	*ret_value = value_new_string(ref);
	return 0;
}

/* The types that come as they are stored. */
static bool is_stored_type(const struct class_field *field, const struct value *given)
{
	switch (field->type) {
	case FIELD_STRING:
	case FIELD_ENUM:
		return given->type == VALUE_STRING;
	case FIELD_BOOL:
		return given->type == VALUE_BOOL;
	case FIELD_SET_STRING:
	case FIELD_SET_INT:
	case FIELD_SET_REF:
		return given->type == VALUE_ARRAY;
	case FIELD_MAP:
	case FIELD_MAP_ANY:
		return given->type == VALUE_STRUCT;
	case FIELD_INT:
	case FIELD_FLOAT:
	case FIELD_DATETIME:
	case FIELD_REF:
	case FIELD_DERIVED:
		break;
	}
	return false;
}

static int take_field(struct pool_db *pool, const struct class_field *field,
	const struct value *given, struct value **ret_value, struct fault *fault)
{
	switch (field->type) {
	case FIELD_INT:
		return take_int(field, given, ret_value, fault);
	case FIELD_FLOAT:
		return take_float(field, given, ret_value, fault);
	case FIELD_DATETIME:
		return take_datetime(field, given, ret_value, fault);
	case FIELD_REF:
		return take_ref(pool, field, given, ret_value, fault);
	default:
		break;
	}
	if (!is_stored_type(field, given))
		return wrong_type(field, fault);
	*ret_value = value_copy(given);
	return 0;
}

int record_take(struct pool_db *pool, const char *class, const struct value *given,
	struct value **ret_fields, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	const struct class *list = class_find(class);

	for (size_t i = 0; i < given->record.n_members; i++) {
		const struct value_member *member = &given->record.members[i];
		const struct class_field *field = class_field_find(list, member->name);
		struct value *value = NULL;
		if (!field || field->access == FIELD_RO)
			continue;
		int r = take_field(pool, field, member->value, &value, fault);
		if (r < 0)
			return r;
		value_set(fields, field->name, value);
	}
	*ret_fields = TAKE_PTR(fields);
	return 0;
}

int record_require(
	const char *class, const struct value *fields, const char *field_name, struct fault *fault)
{
	const struct class_field *field = class_field_find(class_find(class), field_name);
	const struct value *value = value_find(fields, field_name);

	if (!value)
		return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", field_name, NULL);
	if (field->type == FIELD_REF && ref_is_null(value->string))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", field->of, REF_NULL, NULL);
	return 0;
}
