/* SPDX-License-Identifier: Apache-2.0 */
/* A recursive descent parser that evaluates as it reads: records are few and expressions short. */
#include "agent/api/where.h"

#include "base/alloc.h"
#include "base/buf.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define WHERE_MAX_DEPTH 32

struct where {
	const struct class *class;
	const char *text;
	const char *at;
	const struct value *record; /* evaluated against; NULL: only read */
	unsigned depth;
	struct fault *fault;
};

static int where_error(struct where *where, const char *expected)
{
	return fault_text(where->fault, -EINVAL,
		"The expression cannot be read at character %zu (\"%.20s\"): expected %s",
		(size_t)(where->at - where->text) + 1, where->at, expected);
}

static void skip_space(struct where *where)
{
	while (isspace((unsigned char)*where->at))
		where->at++;
}

/* Takes the word if it is next. */
static bool take_word(struct where *where, const char *word)
{
	size_t length = strlen(word);

	skip_space(where);
	if (strncmp(where->at, word, length) != 0)
		return false;
	if (isalnum((unsigned char)word[0]) && isalnum((unsigned char)where->at[length]))
		return false;
	where->at += length;
	return true;
}

/* A text in double or single quotes, with \ before a quote or a \. */
static int take_text(struct where *where, char **ret_text)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	const char *at;
	char quote;

	skip_space(where);
	quote = *where->at;
	if (quote != '"' && quote != '\'')
		return where_error(where, "a text in quotes");
	for (at = where->at + 1; *at != quote; at++) {
		if (*at == '\\' && at[1] != '\0')
			at++;
		if (*at == '\0')
			return where_error(where, "a text whose quotes are closed");
		buf_append_char(&text, *at);
	}
	where->at = at + 1;
	*ret_text = buf_take_string(&text);
	return 0;
}

static char *value_as_text(const struct value *value)
{
	switch (value->type) {
	case VALUE_STRING:
		return xstrdup(value->string);
	case VALUE_INT:
	case VALUE_I4:
		return xasprintf("%lld", (long long)value->integer);
	case VALUE_BOOL:
		return xstrdup(value->boolean ? "true" : "false");
	case VALUE_DOUBLE:
		return xasprintf("%.16g", value->real);
	case VALUE_DATETIME:
		return datetime_format(value->integer);
	case VALUE_ARRAY:
	case VALUE_STRUCT:
	case VALUE_NIL:
		break;
	}
	return NULL;
}

/* Compares the field (or the map's entry) of the record with text. */
static int compare(struct where *where, const char *name, const char *text, bool *ret_is_true)
{
	const char *split = strstr(name, "__");
	char *field CLEANUP_FREE = split ? xstrndup(name, (size_t)(split - name)) : xstrdup(name);
	char *found CLEANUP_FREE = NULL;
	const struct value *value;

	if (!class_has_field(where->class, field))
		return fault_set(where->fault, -EINVAL, "INVALID_VALUE", "field", name, NULL);
	value = value_find(where->record, field);
	if (value && split)
		value = value_find(value, split + 2);
	found = value ? value_as_text(value) : NULL;
	*ret_is_true = found && strcmp(found, text) == 0;
	return 0;
}

static int read_or(struct where *where, bool *ret_is_true);

static int read_comparison(struct where *where, bool *ret_is_true)
{
	char *name CLEANUP_FREE = NULL;
	char *text CLEANUP_FREE = NULL;
	int r = take_text(where, &name);

	if (r < 0)
		return r;
	if (!take_word(where, "="))
		return where_error(where, "=");
	r = take_text(where, &text);
	return r < 0 ? r : compare(where, name, text, ret_is_true);
}

static int read_factor(struct where *where, bool *ret_is_true)
{
	bool is_true = false;
	int r;

	if (where->depth >= WHERE_MAX_DEPTH)
		return where_error(where, "at most 32 levels of not and (");
	if (take_word(where, "true")) {
		*ret_is_true = true;
		return 0;
	}
	if (take_word(where, "false")) {
		*ret_is_true = false;
		return 0;
	}
	if (take_word(where, "field"))
		return read_comparison(where, ret_is_true);
	where->depth++;
	if (take_word(where, "not")) {
		r = read_factor(where, &is_true);
		*ret_is_true = !is_true;
	} else if (take_word(where, "(")) {
		r = read_or(where, ret_is_true);
		if (r == 0 && !take_word(where, ")"))
			r = where_error(where, ")");
	} else {
		r = where_error(where, "field, not, true, false or (");
	}
	where->depth--;
	return r;
}

static int read_and(struct where *where, bool *ret_is_true)
{
	int r = read_factor(where, ret_is_true);

	while (r == 0 && take_word(where, "and")) {
		bool next = false;
		r = read_factor(where, &next);
		*ret_is_true = *ret_is_true && next;
	}
	return r;
}

static int read_or(struct where *where, bool *ret_is_true)
{
	int r = read_and(where, ret_is_true);

	while (r == 0 && take_word(where, "or")) {
		bool next = false;
		r = read_and(where, &next);
		*ret_is_true = *ret_is_true || next;
	}
	return r;
}

static int where_test(const struct class *class, const char *expression, const struct value *record,
	bool *ret_is_true, struct fault *fault)
{
	struct where where = {class, expression, expression, record, 0, fault};
	int r = read_or(&where, ret_is_true);

	if (r < 0)
		return r;
	skip_space(&where);
	return *where.at ? where_error(&where, "and, or, or the end") : 0;
}

int where_select(const struct class *class, const char *expression, const struct value *records,
	struct value **ret_records, struct fault *fault)
{
	struct value *selected CLEANUP_VALUE = value_new_struct();
	bool is_true = false;
	/* Once without a record: a bad expression is one in an empty class too. */
	int r = where_test(class, expression, NULL, &is_true, fault);

	for (size_t i = 0; r == 0 && i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		r = where_test(class, expression, member->value, &is_true, fault);
		if (r == 0 && is_true)
			value_set(selected, member->name, value_copy(member->value));
	}
	if (r < 0)
		return r;
	*ret_records = TAKE_PTR(selected);
	return 0;
}
