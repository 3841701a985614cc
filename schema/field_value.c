/* SPDX-License-Identifier: Apache-2.0 */
/* A field's value as one cell of its table, and back. Sets and maps are JSON text. */
#include "base/alloc.h"
#include "base/json.h"
#include "base/parse.h"
#include "base/uuid.h"
#include "schema/pool_private.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static int type_error(const struct class_field *field, struct fault *fault)
{
	return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", field->name, NULL);
}

static int value_error(const struct class_field *field, const char *text, struct fault *fault)
{
	return fault_set(fault, -EINVAL, "INVALID_VALUE", field->name, text, NULL);
}

static bool is_choice(const char *choices, const char *text)
{
	size_t length = strlen(text);

	if (strchr(text, '|'))
		return false;
	for (const char *at = choices; at; at = strchr(at, '|'), at = at ? at + 1 : NULL)
		if (strncmp(at, text, length) == 0 && (at[length] == '|' || !at[length]))
			return true;
	return false;
}

/* --- To a cell ------------------------------------------------------------------------------- */

static int encode_text(const struct class_field *field, const struct value *value,
	struct db_cell *cell, struct fault *fault)
{
	if (value->type != VALUE_STRING)
		return type_error(field, fault);
	if (!utf8_is_valid(value->string, strlen(value->string)))
		return value_error(field, "(text that is not UTF-8)", fault);
	if (field->type == FIELD_ENUM && !is_choice(field->of, value->string))
		return value_error(field, value->string, fault);
	if (field->type == FIELD_REF && ref_is_null(value->string))
		return 0;
	/* The class is one that this service does not have. */
	if (field->type == FIELD_REF && !class_find(field->of))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", field->of, value->string, NULL);
	*cell = (struct db_cell){.type = DB_TEXT, .text = xstrdup(value->string)};
	return 0;
}

static int encode_number(const struct class_field *field, const struct value *value,
	struct db_cell *cell, struct fault *fault)
{
	bool is_int = value->type == VALUE_INT || value->type == VALUE_I4;

	if ((field->type == FIELD_INT && is_int) ||
		(field->type == FIELD_DATETIME && value->type == VALUE_DATETIME))
		*cell = (struct db_cell){.type = DB_INT, .integer = value->integer};
	else if (field->type == FIELD_BOOL && value->type == VALUE_BOOL)
		*cell = (struct db_cell){.type = DB_INT, .integer = value->boolean};
	else if (field->type == FIELD_FLOAT && is_int)
		*cell = (struct db_cell){.type = DB_REAL, .real = (double)value->integer};
	else if (field->type == FIELD_FLOAT && value->type == VALUE_DOUBLE)
		*cell = (struct db_cell){.type = DB_REAL, .real = value->real};
	else
		return type_error(field, fault);
	if (cell->type == DB_REAL && !isfinite(cell->real))
		return value_error(field, "(not a finite number)", fault);
	return 0;
}

static int check_item(
	const struct class_field *field, const struct value *item, struct fault *fault)
{
	if (field->type == FIELD_SET_INT)
		return item->type == VALUE_INT || item->type == VALUE_I4 ? 0
									 : type_error(field, fault);
	if (item->type != VALUE_STRING)
		return type_error(field, fault);
	if (!utf8_is_valid(item->string, strlen(item->string)))
		return value_error(field, "(text that is not UTF-8)", fault);
	if (field->type == FIELD_SET_STRING && field->of && !is_choice(field->of, item->string))
		return value_error(field, item->string, fault);
	if (field->type == FIELD_SET_REF && !class_find(field->of))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", field->of, item->string, NULL);
	return 0;
}

static int check_members(
	const struct class_field *field, const struct value *value, struct fault *fault)
{
	for (size_t i = 0; i < value->record.n_members; i++) {
		const struct value_member *member = &value->record.members[i];
		bool is_text = member->value->type == VALUE_STRING;
		if (field->type == FIELD_MAP && !is_text)
			return type_error(field, fault);
		if (!utf8_is_valid(member->name, strlen(member->name)) ||
			(is_text && !utf8_is_valid(
					    member->value->string, strlen(member->value->string))))
			return value_error(field, "(text that is not UTF-8)", fault);
	}
	return 0;
}

static int encode_container(const struct class_field *field, const struct value *value,
	struct db_cell *cell, struct fault *fault)
{
	bool is_map = field->type == FIELD_MAP || field->type == FIELD_MAP_ANY;
	struct buf json CLEANUP_BUF = BUF_INIT;
	int r = 0;

	if (value->type != (is_map ? VALUE_STRUCT : VALUE_ARRAY))
		return type_error(field, fault);
	if (is_map)
		r = check_members(field, value, fault);
	else
		for (size_t i = 0; r == 0 && i < value->array.n_items; i++)
			r = check_item(field, value->array.items[i], fault);
	if (r < 0)
		return r;
	json_encode(value, &json);
	*cell = (struct db_cell){.type = DB_TEXT, .text = buf_take_string(&json)};
	return 0;
}

int field_encode(const struct class_field *field, const struct value *value,
	struct db_cell *ret_cell, struct fault *fault)
{
	struct db_cell cell = {0};
	int r;

	switch (field->type) {
	case FIELD_STRING:
	case FIELD_ENUM:
	case FIELD_REF:
		r = encode_text(field, value, &cell, fault);
		break;
	case FIELD_INT:
	case FIELD_BOOL:
	case FIELD_FLOAT:
	case FIELD_DATETIME:
		r = encode_number(field, value, &cell, fault);
		break;
	case FIELD_DERIVED:
		r = fault_text(fault, -EINVAL, "field %s is the other end of %s: set that one",
			field->name, field->of);
		break;
	default:
		r = encode_container(field, value, &cell, fault);
		break;
	}
	if (r == 0)
		*ret_cell = cell;
	return r;
}

/* --- Defaults -------------------------------------------------------------------------------- */

const char *field_sql_type(const struct class_field *field)
{
	switch (field->type) {
	case FIELD_INT:
	case FIELD_BOOL:
	case FIELD_DATETIME:
		return "INTEGER";
	case FIELD_FLOAT:
		return "REAL";
	default:
		return "TEXT";
	}
}

void field_default(const struct class_field *field, struct db_cell *ret_cell)
{
	const char *text = field->fallback;

	*ret_cell = (struct db_cell){0};
	switch (field->type) {
	case FIELD_REF:
		return;
	case FIELD_BOOL:
		ret_cell->type = DB_INT;
		ret_cell->integer = text && strcmp(text, "true") == 0;
		return;
	case FIELD_INT:
	case FIELD_DATETIME:
		ret_cell->type = DB_INT;
		if (text)
			parse_int64(text, &ret_cell->integer);
		return;
	case FIELD_FLOAT:
		ret_cell->type = DB_REAL;
		if (text)
			parse_double(text, &ret_cell->real);
		return;
	case FIELD_MAP:
	case FIELD_MAP_ANY:
		text = text ? text : "{}";
		break;
	case FIELD_SET_STRING:
	case FIELD_SET_INT:
	case FIELD_SET_REF:
		text = text ? text : "[]";
		break;
	default:
		text = text ? text : "";
		break;
	}
	ret_cell->type = DB_TEXT;
	ret_cell->text = xstrdup(text);
}

/* --- From a cell ----------------------------------------------------------------------------- */

static int decode_container(const char *json, struct value **ret_value, struct fault *fault)
{
	/* Most are empty, and lists are long. */
	if (strcmp(json, "{}") == 0)
		*ret_value = value_new_struct();
	else if (strcmp(json, "[]") == 0)
		*ret_value = value_new_array();
	else
		return json_decode(json, strlen(json), NULL, ret_value, fault);
	return 0;
}

int field_decode(const struct class_field *field, struct db_query *query, int column,
	struct value **ret_value, struct fault *fault)
{
	const char *text;

	switch (field->type) {
	case FIELD_INT:
		*ret_value = value_new_int(db_column_int(query, column));
		return 0;
	case FIELD_BOOL:
		*ret_value = value_new_bool(db_column_int(query, column) != 0);
		return 0;
	case FIELD_DATETIME:
		*ret_value = value_new_datetime(db_column_int(query, column));
		return 0;
	case FIELD_FLOAT:
		*ret_value = value_new_double(db_column_real(query, column));
		return 0;
	case FIELD_REF:
		text = db_column_text(query, column);
		*ret_value = value_new_string(text ? text : REF_NULL);
		return 0;
	case FIELD_STRING:
	case FIELD_ENUM:
		*ret_value = value_new_string(db_column_text(query, column));
		return 0;
	default:
		text = db_column_text(query, column);
		return decode_container(text ? text : "", ret_value, fault);
	}
}
