/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/alloc.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static json_t *to_json(const struct value *value)
{
	json_t *json;

	switch (value->type) {
	case VALUE_STRING:
		/* Text that is not UTF-8 has no JSON form: it never enters through the codecs. */
		json = json_string(value->string);
		return json ? json : json_string("");
	case VALUE_INT:
	case VALUE_I4:
		return json_integer(value->integer);
	case VALUE_BOOL:
		return json_boolean(value->boolean);
	case VALUE_DOUBLE:
		json = json_real(value->real);
		return json ? json : json_integer(0);
	case VALUE_DATETIME: {
		char *text CLEANUP_FREE = datetime_format(value->integer);
		return json_string(text);
	}
	case VALUE_ARRAY:
		json = json_array();
		for (size_t i = 0; i < value->array.n_items; i++)
			json_array_append_new(json, to_json(value->array.items[i]));
		return json;
	case VALUE_STRUCT:
		json = json_object();
		for (size_t i = 0; i < value->record.n_members; i++)
			json_object_set_new(json, value->record.members[i].name,
				to_json(value->record.members[i].value));
		return json;
	case VALUE_NIL:
		break;
	}
	return json_null();
}

static int append_chunk(const char *data, size_t length, void *out)
{
	buf_append(out, data, length);
	return 0;
}

static void encode(const struct value *value, size_t flags, struct buf *out)
{
	json_t *json = to_json(value);

	json_dump_callback(json, append_chunk, out, flags | JSON_ENCODE_ANY);
	json_decref(json);
}

void json_encode(const struct value *value, struct buf *out)
{
	encode(value, JSON_COMPACT, out);
}

void json_encode_pretty(const struct value *value, struct buf *out)
{
	encode(value, JSON_INDENT(2), out);
}

struct decoding {
	size_t depth_left;
	size_t values_left;
};

static struct value *from_json(json_t *json, struct decoding *state)
{
	struct value *value;
	const char *name;
	json_t *item;
	size_t i;

	if (state->values_left == 0)
		return NULL;
	state->values_left--;
	switch (json_typeof(json)) {
	case JSON_STRING:
		return value_new_string_n(json_string_value(json), json_string_length(json));
	case JSON_INTEGER:
		return value_new_int(json_integer_value(json));
	case JSON_REAL:
		return value_new_double(json_real_value(json));
	case JSON_TRUE:
	case JSON_FALSE:
		return value_new_bool(json_is_true(json));
	case JSON_NULL:
		return value_new_nil();
	default:
		break;
	}
	if (state->depth_left == 0)
		return NULL;
	struct value *result CLEANUP_VALUE =
		json_is_array(json) ? value_new_array() : value_new_struct();
	state->depth_left--;
	json_array_foreach(json, i, item)
	{
		value = from_json(item, state);
		if (!value)
			return NULL;
		value_append(result, value);
	}
	json_object_foreach(json, name, item)
	{
		value = from_json(item, state);
		if (!value)
			return NULL;
		value_set(result, name, value);
	}
	state->depth_left++;
	return TAKE_PTR(result);
}

int json_decode(const void *data, size_t length, const struct json_limits *limits,
	struct value **ret_value, struct fault *fault)
{
	static const struct json_limits generous = {.max_depth = 256, .max_values = SIZE_MAX};
	json_error_t error;

	if (!limits)
		limits = &generous;
	json_t *json = json_loadb(data, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (!json)
		return fault_text(fault, -EBADMSG, "JSON line %d column %d: %s", error.line,
			error.column, error.text);
	struct decoding state = {
		.depth_left = limits->max_depth, .values_left = limits->max_values};
	struct value *value = from_json(json, &state);
	json_decref(json);
	if (!value)
		return fault_text(fault, -EBADMSG,
			"JSON: more than %zu values, or nested deeper than %zu", limits->max_values,
			limits->max_depth);
	*ret_value = value;
	return 0;
}
