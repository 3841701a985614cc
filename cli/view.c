/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/view.h"

#include "base/alloc.h"
#include "base/uuid.h"
#include "cli/record.h"

#include <inttypes.h>
#include <string.h>

/* The name of what a ref points at: the uuid when it has none, "-" for nothing. */
static int format_name(struct context *context, const struct column *column, const char *ref,
	char **ret_text, struct fault *fault)
{
	const struct value *records = NULL;

	if (ref_is_null(ref)) {
		*ret_text = xstrdup("-");
		return 0;
	}
	int r = session_records(context->session, column->of, &records, fault);
	if (r < 0)
		return r;
	const struct value *record = value_find(records, ref);
	const char *name = value_find_string(record, "name_label", "");
	*ret_text = xstrdup(*name ? name : value_find_string(record, "uuid", "?"));
	return 0;
}

static char *format_map(const struct value *map)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	if (!map || map->type != VALUE_STRUCT)
		return xstrdup("-");
	for (size_t i = 0; i < map->record.n_members; i++)
		buf_printf(&text, "%s%s=%s", i ? ", " : "", map->record.members[i].name,
			value_string(map->record.members[i].value, "?"));
	return text.length ? buf_take_string(&text) : xstrdup("-");
}

static char *format_set(const struct value *set)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	if (!set || set->type != VALUE_ARRAY)
		return xstrdup("-");
	for (size_t i = 0; i < set->array.n_items; i++)
		buf_printf(&text, "%s%s", i ? ", " : "", value_string(set->array.items[i], "?"));
	return text.length ? buf_take_string(&text) : xstrdup("-");
}

static char *format_size(int64_t bytes, const char *suffix)
{
	if (bytes < 0)
		return xstrdup("-");
	char *size CLEANUP_FREE = output_size((uint64_t)bytes);
	return xasprintf("%s%s", size, suffix);
}

static char *format_duration(int64_t seconds)
{
	return seconds < 0 ? xstrdup("-") : output_duration((uint64_t)seconds);
}

static char *format_time(const struct value *value)
{
	int64_t seconds = 0;

	if (value && value->type == VALUE_DATETIME)
		seconds = value->integer;
	else if (value && value->type == VALUE_STRING)
		(void)datetime_parse(value->string, &seconds); /* stays 0: shown as "-" */
	return output_time(seconds);
}

/* "-" from a server that has no such class, or no such object. */
static char *format_bool_at(struct context *context, const struct column *column, const char *ref)
{
	const char *dot = strchr(column->of, '.');
	char *class CLEANUP_FREE = xstrndup(column->of, (size_t)(dot - column->of));
	const struct value *records = NULL;

	if (session_records(context->session, class, &records, NULL) < 0 ||
		!value_find(records, ref))
		return xstrdup("-");
	return xstrdup(value_find_bool(value_find(records, ref), dot + 1, false) ? "yes" : "no");
}

static int format_cell(struct context *context, const struct column *column,
	const struct value *record, char **ret_text, struct fault *fault)
{
	const struct value *value = value_find(record, column->field);
	const char *text = value_string(value, "");

	switch (column->kind) {
	case COLUMN_TEXT:
		*ret_text = xstrdup(*text ? text : "-");
		return 0;
	case COLUMN_NAME:
		return format_name(context, column, text, ret_text, fault);
	case COLUMN_SIZE:
		*ret_text = format_size(record_int(record, column->field, -1), "");
		return 0;
	case COLUMN_RATE:
		*ret_text = format_size(record_int(record, column->field, -1), "/s");
		return 0;
	case COLUMN_INT:
		*ret_text = xasprintf("%" PRId64, record_int(record, column->field, 0));
		return 0;
	case COLUMN_BOOL:
		*ret_text = xstrdup(value_find_bool(record, column->field, false) ? "yes" : "no");
		return 0;
	case COLUMN_BOOL_AT:
		*ret_text = format_bool_at(context, column, text);
		return 0;
	case COLUMN_COUNT:
		*ret_text = xasprintf(
			"%zu", value && value->type == VALUE_ARRAY ? value->array.n_items : 0);
		return 0;
	case COLUMN_PERCENT:
		*ret_text = xasprintf("%.0f%%", record_double(record, column->field, 0) * 100);
		return 0;
	case COLUMN_TIME:
		*ret_text = format_time(value);
		return 0;
	case COLUMN_DURATION:
		*ret_text = format_duration(record_int(record, column->field, -1));
		return 0;
	case COLUMN_MAP:
		*ret_text = format_map(value);
		return 0;
	case COLUMN_SET:
		*ret_text = format_set(value);
		return 0;
	}
	*ret_text = xstrdup("-");
	return 0;
}

static bool is_number(enum column_kind kind)
{
	return kind == COLUMN_SIZE || kind == COLUMN_RATE || kind == COLUMN_INT ||
	       kind == COLUMN_COUNT || kind == COLUMN_PERCENT;
}

static struct table *make_table(const struct view *view)
{
	struct table *table = table_new();

	for (size_t i = 0; i < view->n_listed; i++)
		table_add_column(table, view->columns[i].title,
			is_number(view->columns[i].kind) ? TABLE_RIGHT : TABLE_LEFT);
	return table;
}

static int add_row(struct context *context, const struct view *view, const struct value *record,
	struct table *table, struct fault *fault)
{
	for (size_t i = 0; i < view->n_listed; i++) {
		char *text CLEANUP_FREE = NULL;
		int r = format_cell(context, &view->columns[i], record, &text, fault);
		if (r < 0)
			return r;
		table_add(table, text);
	}
	return 0;
}

static bool is_listed(const struct view *view, const struct value *record)
{
	return !view->is_listed || view->is_listed(record);
}

int view_list(struct context *context, const struct view *view, struct fault *fault)
{
	struct table *table CLEANUP_TABLE = make_table(view);
	struct value *json CLEANUP_VALUE = value_new_array();
	const struct value *records = NULL;
	int r = context_session(context, fault);

	if (r < 0)
		return r;
	r = session_records(context->session, view->class, &records, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		if (!is_listed(view, member->value))
			continue;
		if (context->json)
			value_append(json, record_for_json(member->name, member->value));
		else
			r = add_row(context, view, member->value, table, fault);
		if (r < 0)
			return r;
	}
	if (context->json)
		context_put_json(context, json);
	else
		table_write(table, &context->out);
	return 0;
}

int view_find(struct context *context, const struct view *view, struct object *object,
	struct fault *fault)
{
	int r = context_session(context, fault);

	if (r < 0)
		return r;
	return object_find(
		context->session, view->class, args_operand(context->args, 0), object, fault);
}

int view_write(struct context *context, const struct view *view, const struct value *record,
	struct fault *fault)
{
	size_t width = 0;

	for (size_t i = 0; i < view->n_columns; i++)
		width = MAX(width, strlen(view->columns[i].title));
	for (size_t i = 0; i < view->n_columns; i++) {
		char *text CLEANUP_FREE = NULL;
		int r = format_cell(context, &view->columns[i], record, &text, fault);
		if (r < 0)
			return r;
		char *clean CLEANUP_FREE = output_clean(text);
		buf_printf(&context->out, "%-*s  %s\n", (int)width, view->columns[i].title, clean);
	}
	return 0;
}

int view_write_some(struct context *context, const struct view *view, const char *heading,
	const struct value *refs, struct fault *fault)
{
	struct table *table CLEANUP_TABLE = make_table(view);
	const struct value *records = NULL;

	if (!refs || refs->type != VALUE_ARRAY || refs->array.n_items == 0)
		return 0;
	int r = session_records(context->session, view->class, &records, fault);
	for (size_t i = 0; i < refs->array.n_items && r == 0; i++) {
		const struct value *record =
			value_find(records, value_string(refs->array.items[i], ""));
		if (record)
			r = add_row(context, view, record, table, fault);
	}
	if (r < 0)
		return r;
	buf_printf(&context->out, "\n%s\n", heading);
	table_write(table, &context->out);
	return 0;
}

int view_show(struct context *context, const struct view *view, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, view, &object, fault);

	if (r < 0)
		return r;
	if (!context->json)
		return view_write(context, view, object.record, fault);
	struct value *json CLEANUP_VALUE = record_for_json(object.ref, object.record);
	context_put_json(context, json);
	return 0;
}
