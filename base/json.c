/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

/* --- Writing: straight from the values. A tree of the library's own beside ours takes longer to
 * make than to write, when it is a list of thousands of objects. */

struct writing {
	struct buf *out;
	bool is_pretty;
	int level;
};

static void new_line(struct writing *writing)
{
	if (!writing->is_pretty)
		return;
	buf_append_char(writing->out, '\n');
	for (int i = 0; i < writing->level; i++)
		buf_append_string(writing->out, "  ");
}

static void write_escaped(struct buf *out, unsigned char c)
{
	static const char letters[] = "\bb\ff\nn\rr\tt\"\"\\\\";
	const char *letter = letters;

	while (*letter && (unsigned char)*letter != c)
		letter += 2;
	if (*letter)
		buf_append(out, (const char[]){'\\', letter[1]}, 2);
	else
		buf_printf(out, "\\u%04X", c);
}

/* Text that is not UTF-8 has no JSON form: it never enters through the codecs. */
static void write_text(struct buf *out, const char *s)
{
	buf_append_char(out, '"');
	if (!utf8_is_valid(s, strlen(s)))
		s = "";
	for (;;) {
		size_t n = 0;
		while ((unsigned char)s[n] >= 0x20 && s[n] != '"' && s[n] != '\\')
			n++;
		buf_append(out, s, n);
		s += n;
		if (!*s)
			break;
		write_escaped(out, (unsigned char)*s++);
	}
	buf_append_char(out, '"');
}

static int append_chunk(const char *data, size_t length, void *out)
{
	buf_append(out, data, length);
	return 0;
}

static void write_real(struct buf *out, double real)
{
	json_t *json = json_real(real); /* NULL: not a finite one */

	if (json)
		json_dump_callback(json, append_chunk, out, JSON_ENCODE_ANY);
	else
		buf_append_char(out, '0');
	json_decref(json);
}

static void write_value(struct writing *writing, const struct value *value);

/* Before an item, the first of which is at 0. */
static void begin_item(struct writing *writing, size_t i)
{
	if (i)
		buf_append_char(writing->out, ',');
	new_line(writing);
}

static void write_array(struct writing *writing, const struct value *array)
{
	buf_append_char(writing->out, '[');
	writing->level++;
	for (size_t i = 0; i < array->array.n_items; i++) {
		begin_item(writing, i);
		write_value(writing, array->array.items[i]);
	}
	writing->level--;
	if (array->array.n_items)
		new_line(writing);
	buf_append_char(writing->out, ']');
}

static void write_struct(struct writing *writing, const struct value *record)
{
	buf_append_char(writing->out, '{');
	writing->level++;
	for (size_t i = 0; i < record->record.n_members; i++) {
		begin_item(writing, i);
		write_text(writing->out, record->record.members[i].name);
		buf_append_string(writing->out, writing->is_pretty ? ": " : ":");
		write_value(writing, record->record.members[i].value);
	}
	writing->level--;
	if (record->record.n_members)
		new_line(writing);
	buf_append_char(writing->out, '}');
}

static void write_datetime(struct buf *out, int64_t seconds)
{
	char *text CLEANUP_FREE = datetime_format(seconds);

	write_text(out, text);
}

static void write_value(struct writing *writing, const struct value *value)
{
	switch (value->type) {
	case VALUE_STRING:
		write_text(writing->out, value->string);
		break;
	case VALUE_INT:
	case VALUE_I4:
		buf_printf(writing->out, "%" PRId64, value->integer);
		break;
	case VALUE_BOOL:
		buf_append_string(writing->out, value->boolean ? "true" : "false");
		break;
	case VALUE_DOUBLE:
		write_real(writing->out, value->real);
		break;
	case VALUE_DATETIME:
		write_datetime(writing->out, value->integer);
		break;
	case VALUE_ARRAY:
		write_array(writing, value);
		break;
	case VALUE_STRUCT:
		write_struct(writing, value);
		break;
	case VALUE_NIL:
		buf_append_string(writing->out, "null");
		break;
	}
}

void json_encode(const struct value *value, struct buf *out)
{
	write_value(&(struct writing){.out = out}, value);
}

void json_encode_pretty(const struct value *value, struct buf *out)
{
	write_value(&(struct writing){.out = out, .is_pretty = true}, value);
}

/* --- Reading ---------------------------------------------------------------------------------- */

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
