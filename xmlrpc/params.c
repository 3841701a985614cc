/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/params.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>

static void replace(struct value **value, struct value *by)
{
	value_free(*value);
	*value = by;
}

static bool is_int(const struct value *value)
{
	return value->type == VALUE_INT || value->type == VALUE_I4;
}

static bool to_int(struct value **value)
{
	int64_t integer;

	if (is_int(*value))
		return true;
	/* Beyond 2^53 a double no longer says which integer was meant. */
	if ((*value)->type == VALUE_DOUBLE && (*value)->real >= -0x1p53 &&
		(*value)->real <= 0x1p53 && (*value)->real == (double)(int64_t)(*value)->real) {
		replace(value, value_new_int((int64_t)(*value)->real));
		return true;
	}
	if (parse_int64(value_string(*value, ""), &integer) < 0)
		return false;
	replace(value, value_new_int(integer));
	return true;
}

static bool to_double(struct value **value)
{
	double real;

	if ((*value)->type == VALUE_DOUBLE)
		return true;
	if (is_int(*value)) {
		replace(value, value_new_double((double)(*value)->integer));
		return true;
	}
	if (parse_double(value_string(*value, ""), &real) < 0)
		return false;
	replace(value, value_new_double(real));
	return true;
}

static bool to_datetime(struct value **value)
{
	int64_t seconds;

	if ((*value)->type == VALUE_DATETIME)
		return true;
	if (datetime_parse(value_string(*value, ""), &seconds) < 0)
		return false;
	replace(value, value_new_datetime(seconds));
	return true;
}

static bool is_map(const struct value *value)
{
	if (value->type != VALUE_STRUCT)
		return false;
	for (size_t i = 0; i < value->record.n_members; i++)
		if (value->record.members[i].value->type != VALUE_STRING)
			return false;
	return true;
}

static bool is_set(const struct value *value)
{
	if (value->type != VALUE_ARRAY)
		return false;
	for (size_t i = 0; i < value->array.n_items; i++)
		if (value->array.items[i]->type != VALUE_STRING)
			return false;
	return true;
}

static bool convert(enum param_type type, struct value **value)
{
	switch (type) {
	case PARAM_STRING:
		return (*value)->type == VALUE_STRING;
	case PARAM_INT:
		return to_int(value);
	case PARAM_BOOL:
		return (*value)->type == VALUE_BOOL;
	case PARAM_DOUBLE:
		return to_double(value);
	case PARAM_DATETIME:
		return to_datetime(value);
	case PARAM_MAP:
		return is_map(*value);
	case PARAM_SET:
		return is_set(*value);
	case PARAM_STRUCT:
		return (*value)->type == VALUE_STRUCT;
	case PARAM_ARRAY:
		return (*value)->type == VALUE_ARRAY;
	case PARAM_ANY:
		break;
	}
	return true;
}

static const char *wanted(enum param_type type)
{
	static const char *const texts[] = {
		[PARAM_STRING] = "a string",
		[PARAM_INT] = "an int, or its decimal text",
		[PARAM_BOOL] = "a boolean",
		[PARAM_DOUBLE] = "a double, an int, or decimal text",
		[PARAM_DATETIME] = "a dateTime.iso8601, as 20260821T02:00:23Z",
		[PARAM_MAP] = "a struct whose values are all strings",
		[PARAM_SET] = "an array of strings",
		[PARAM_STRUCT] = "a struct",
		[PARAM_ARRAY] = "an array",
		[PARAM_ANY] = "any value",
	};

	return texts[type];
}

int param_convert(const struct method *method, size_t index, size_t position, struct value **value,
	struct fault *fault)
{
	const struct param *param = &method->params[index];

	if (convert(param->type, value))
		return 0;
	char *text CLEANUP_FREE =
		xasprintf("%s: parameter %zu (%s) must be %s; this is a %s", method->name, position,
			param->name, wanted(param->type), value_type_name((*value)->type));
	return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", param->name, text, NULL);
}
