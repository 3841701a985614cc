/* SPDX-License-Identifier: Apache-2.0 */
/* Structs are arrays of members in insertion order. From INDEX_MIN members on, an open-addressing
 * hash of the names is kept beside them, so that records of thousands of members stay linear. */
#include "base/value.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define INDEX_MIN  16
#define INDEX_FREE SIZE_MAX

static struct value *value_new(enum value_type type)
{
	struct value *value = xcalloc(1, sizeof(*value));

	value->type = type;
	return value;
}

/* One piece of memory: lists of objects have very many texts. */
static struct value *new_text(const char *s, size_t length)
{
	struct value *value = xcalloc(1, sizeof(*value) + length + 1);

	value->type = VALUE_STRING;
	value->string = (char *)(value + 1);
	memcpy(value->string, s, length);
	return value;
}

struct value *value_new_string(const char *s)
{
	return s ? new_text(s, strlen(s)) : new_text("", 0);
}

struct value *value_new_string_n(const char *s, size_t length)
{
	return new_text(s, strnlen(s, length));
}

struct value *value_new_format(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	return value_new_string(text);
}

struct value *value_new_int(int64_t integer)
{
	struct value *value = value_new(VALUE_INT);

	value->integer = integer;
	return value;
}

struct value *value_new_i4(int64_t integer)
{
	struct value *value = value_new(VALUE_I4);

	value->integer = integer;
	return value;
}

struct value *value_new_bool(bool boolean)
{
	struct value *value = value_new(VALUE_BOOL);

	value->boolean = boolean;
	return value;
}

struct value *value_new_double(double real)
{
	struct value *value = value_new(VALUE_DOUBLE);

	value->real = real;
	return value;
}

struct value *value_new_datetime(int64_t seconds)
{
	struct value *value = value_new(VALUE_DATETIME);

	value->integer = seconds;
	return value;
}

struct value *value_new_array(void)
{
	return value_new(VALUE_ARRAY);
}

struct value *value_new_struct(void)
{
	return value_new(VALUE_STRUCT);
}

struct value *value_new_nil(void)
{
	return value_new(VALUE_NIL);
}

static void member_clear(struct value_member *member)
{
	if (!member->is_name_borrowed)
		free((char *)member->name);
	value_free(member->value);
}

struct value *value_free(struct value *value)
{
	if (!value)
		return NULL;
	if (value->type == VALUE_ARRAY) {
		for (size_t i = 0; i < value->array.n_items; i++)
			value_free(value->array.items[i]);
		free(value->array.items);
	} else if (value->type == VALUE_STRUCT) {
		for (size_t i = 0; i < value->record.n_members; i++) {
			member_clear(&value->record.members[i]);
		}
		free(value->record.members);
		free(value->record.index);
	}
	free(value);
	return NULL;
}

struct value *value_copy(const struct value *value)
{
	struct value *copy;

	switch (value->type) {
	case VALUE_STRING:
		return value_new_string(value->string);
	case VALUE_ARRAY:
		copy = value_new_array();
		for (size_t i = 0; i < value->array.n_items; i++)
			value_append(copy, value_copy(value->array.items[i]));
		return copy;
	case VALUE_STRUCT:
		copy = value_new_struct();
		for (size_t i = 0; i < value->record.n_members; i++)
			value_set(copy, value->record.members[i].name,
				value_copy(value->record.members[i].value));
		return copy;
	default:
		copy = value_new(value->type);
		*copy = *value;
		return copy;
	}
}

static bool struct_equal(const struct value *a, const struct value *b)
{
	if (a->record.n_members != b->record.n_members)
		return false;
	for (size_t i = 0; i < a->record.n_members; i++) {
		const struct value *other = value_find(b, a->record.members[i].name);
		if (!other || !value_equal(a->record.members[i].value, other))
			return false;
	}
	return true;
}

bool value_equal(const struct value *a, const struct value *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type) {
	case VALUE_STRING:
		return strcmp(a->string, b->string) == 0;
	case VALUE_BOOL:
		return a->boolean == b->boolean;
	case VALUE_DOUBLE:
		return a->real == b->real;
	case VALUE_ARRAY:
		if (a->array.n_items != b->array.n_items)
			return false;
		for (size_t i = 0; i < a->array.n_items; i++)
			if (!value_equal(a->array.items[i], b->array.items[i]))
				return false;
		return true;
	case VALUE_STRUCT:
		return struct_equal(a, b);
	case VALUE_NIL:
		return true;
	default:
		return a->integer == b->integer;
	}
}

struct value *value_append(struct value *array, struct value *item)
{
	assert(array->type == VALUE_ARRAY);
	size_t n = array->array.n_items;
	if ((n & (n - 1)) == 0) /* full at each power of two */
		array->array.items =
			xrealloc(array->array.items, n ? n * 2 : 1, sizeof(*array->array.items));
	array->array.items[array->array.n_items++] = item;
	return array;
}

struct value *value_append_string(struct value *array, const char *s)
{
	return value_append(array, value_new_string(s));
}

static size_t name_hash(const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	return (size_t)(hash ^ hash >> 32);
}

static void index_insert(struct value *record, size_t position)
{
	size_t mask = record->record.n_index - 1;
	size_t slot = name_hash(record->record.members[position].name) & mask;

	while (record->record.index[slot] != INDEX_FREE)
		slot = (slot + 1) & mask;
	record->record.index[slot] = position;
}

static void index_rebuild(struct value *record)
{
	size_t n = INDEX_MIN * 2;

	while (n < record->record.n_members * 4)
		n *= 2;
	record->record.index = xrealloc(record->record.index, n, sizeof(*record->record.index));
	record->record.n_index = n;
	for (size_t i = 0; i < n; i++)
		record->record.index[i] = INDEX_FREE;
	for (size_t i = 0; i < record->record.n_members; i++)
		index_insert(record, i);
}

static void index_drop(struct value *record)
{
	free(record->record.index);
	record->record.index = NULL;
	record->record.n_index = 0;
}

static struct value_member *member_find(const struct value *record, const char *name)
{
	struct value_member *members = record->record.members;

	if (!record->record.index) {
		for (size_t i = 0; i < record->record.n_members; i++)
			if (strcmp(members[i].name, name) == 0)
				return &members[i];
		return NULL;
	}
	size_t mask = record->record.n_index - 1;
	for (size_t slot = name_hash(name) & mask; record->record.index[slot] != INDEX_FREE;
		slot = (slot + 1) & mask)
		if (strcmp(members[record->record.index[slot]].name, name) == 0)
			return &members[record->record.index[slot]];
	return NULL;
}

static void member_append(struct value *record, struct value_member member)
{
	size_t n = record->record.n_members;

	if ((n & (n - 1)) == 0)
		record->record.members = xrealloc(
			record->record.members, n ? n * 2 : 1, sizeof(*record->record.members));
	record->record.members[n] = member;
	record->record.n_members++;
}

struct value *value_set(struct value *record, const char *name, struct value *value)
{
	assert(record->type == VALUE_STRUCT);
	struct value_member *member = member_find(record, name);
	if (member) {
		value_free(member->value);
		member->value = value;
		return record;
	}
	member_append(record, (struct value_member){.name = xstrdup(name), .value = value});
	size_t n = record->record.n_members;
	if (n < INDEX_MIN)
		return record;
	if (n * 2 > record->record.n_index)
		index_rebuild(record);
	else
		index_insert(record, n - 1);
	return record;
}

struct value *value_add(struct value *record, const char *name, struct value *value)
{
	assert(record->type == VALUE_STRUCT && !record->record.index);
	member_append(record,
		(struct value_member){.name = name, .value = value, .is_name_borrowed = true});
	return record;
}

struct value *value_set_string(struct value *record, const char *name, const char *s)
{
	return value_set(record, name, value_new_string(s));
}

struct value *value_set_int(struct value *record, const char *name, int64_t integer)
{
	return value_set(record, name, value_new_int(integer));
}

struct value *value_set_bool(struct value *record, const char *name, bool boolean)
{
	return value_set(record, name, value_new_bool(boolean));
}

struct value *value_take(struct value *record, const char *name)
{
	struct value_member *member = member_find(record, name);

	if (!member)
		return NULL;
	struct value *value = TAKE_PTR(member->value);
	value_unset(record, name);
	return value;
}

struct value *value_take_item(struct value *array, size_t i)
{
	struct value *item = array->array.items[i];

	array->array.items[i] = value_new_nil();
	return item;
}

bool value_unset(struct value *record, const char *name)
{
	assert(record->type == VALUE_STRUCT);
	struct value_member *member = member_find(record, name);
	if (!member)
		return false;
	size_t position = (size_t)(member - record->record.members);
	size_t n = record->record.n_members;
	member_clear(member);
	memmove(member, member + 1, (n - position - 1) * sizeof(*member));
	record->record.n_members = n - 1;
	/* The growth rule reads the count: give back what no longer fits it. */
	size_t capacity = 1;
	while (capacity < n - 1)
		capacity *= 2;
	record->record.members =
		xrealloc(record->record.members, capacity, sizeof(*record->record.members));
	index_drop(record);
	if (record->record.n_members >= INDEX_MIN)
		index_rebuild(record);
	return true;
}

struct value *value_find(const struct value *record, const char *name)
{
	if (!record || record->type != VALUE_STRUCT)
		return NULL;
	struct value_member *member = member_find(record, name);
	return member ? member->value : NULL;
}

const char *value_string(const struct value *value, const char *fallback)
{
	return value && value->type == VALUE_STRING ? value->string : fallback;
}

const char *value_find_string(const struct value *record, const char *name, const char *fallback)
{
	return value_string(value_find(record, name), fallback);
}

int64_t value_find_int(const struct value *record, const char *name, int64_t fallback)
{
	const struct value *value = value_find(record, name);

	if (!value || (value->type != VALUE_INT && value->type != VALUE_I4))
		return fallback;
	return value->integer;
}

bool value_find_bool(const struct value *record, const char *name, bool fallback)
{
	const struct value *value = value_find(record, name);

	return value && value->type == VALUE_BOOL ? value->boolean : fallback;
}

int64_t value_index_of_string(const struct value *array, const char *s)
{
	if (!array || array->type != VALUE_ARRAY)
		return -1;
	for (size_t i = 0; i < array->array.n_items; i++)
		if (strcmp(value_string(array->array.items[i], ""), s) == 0)
			return (int64_t)i;
	return -1;
}

bool value_contains_string(const struct value *array, const char *s)
{
	return value_index_of_string(array, s) >= 0;
}

const char *value_type_name(enum value_type type)
{
	static const char *const names[] = {
		[VALUE_STRING] = "string",
		[VALUE_INT] = "int",
		[VALUE_I4] = "int",
		[VALUE_BOOL] = "bool",
		[VALUE_DOUBLE] = "double",
		[VALUE_DATETIME] = "datetime",
		[VALUE_ARRAY] = "array",
		[VALUE_STRUCT] = "struct",
		[VALUE_NIL] = "nil",
	};

	return names[type];
}

char *datetime_format(int64_t seconds)
{
	struct tm utc;
	time_t when = (time_t)seconds;
	char text[40];

	if (!gmtime_r(&when, &utc))
		return xstrdup("19700101T00:00:00Z");
	strftime(text, sizeof(text), "%Y%m%dT%H:%M:%SZ", &utc);
	return xstrdup(text);
}

int datetime_parse(const char *s, int64_t *ret_seconds)
{
	int year, month, day, hour, minute, second;
	int end = 0;
	struct tm utc = {0};

	if (strspn(s, "0123456789-T:Z") != strlen(s))
		return -EINVAL;
	if (sscanf(s, "%4d%2d%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second,
		    &end) != 6 &&
		sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second,
			&end) != 6)
		return -EINVAL;
	if (strcmp(s + end, "") != 0 && strcmp(s + end, "Z") != 0)
		return -EINVAL;
	if (year < 1900 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
		hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return -EINVAL;
	utc.tm_year = year - 1900;
	utc.tm_mon = month - 1;
	utc.tm_mday = day;
	utc.tm_hour = hour;
	utc.tm_min = minute;
	utc.tm_sec = second;
	*ret_seconds = (int64_t)timegm(&utc);
	return 0;
}
