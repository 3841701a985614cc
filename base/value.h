/* SPDX-License-Identifier: Apache-2.0 */
/* The tagged value tree that records, calls and results are made of.
 *
 * It mirrors the types of XML-RPC. It stands in base because both the stores (schema) and the wire
 * (xmlrpc) speak it and must not see each other; see docs/adr/0001-values-in-base.md. */
#ifndef FERRY_BASE_VALUE_H
#define FERRY_BASE_VALUE_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum value_type {
	VALUE_STRING, /* UTF-8, NUL-terminated */
	VALUE_INT,    /* 64 bits; XML-RPC: bare decimal text */
	VALUE_I4,     /* an int that XML-RPC must tag as <i4> (event.from.valid_ref_counts) */
	VALUE_BOOL,
	VALUE_DOUBLE,
	VALUE_DATETIME, /* seconds since 1970-01-01 UTC */
	VALUE_ARRAY,
	VALUE_STRUCT, /* members in insertion order, names unique */
	VALUE_NIL,
};

struct value_member;

struct value {
	enum value_type type;
	union {
		char *string;    /* in the value's own memory, never NULL */
		int64_t integer; /* INT, I4, DATETIME */
		bool boolean;
		double real;
		struct {
			struct value **items; /* owned */
			size_t n_items;
		} array;
		struct {
			struct value_member *members; /* owned */
			size_t n_members;
			size_t *index; /* hash of the names, made by value_set when there are many;
					  private */
			size_t n_index;
		} record;
	};
};

struct value_member {
	const char *name; /* owned, unless it is borrowed */
	struct value *value;
	bool is_name_borrowed;
};

/* Constructors. Strings are copied; a NULL string is "". */
struct value *value_new_string(const char *s);
struct value *value_new_string_n(const char *s, size_t length);
struct value *value_new_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct value *value_new_int(int64_t integer);
struct value *value_new_i4(int64_t integer);
struct value *value_new_bool(bool boolean);
struct value *value_new_double(double real);
struct value *value_new_datetime(int64_t seconds);
struct value *value_new_array(void);
struct value *value_new_struct(void);
struct value *value_new_nil(void);

struct value *value_free(struct value *value); /* NULL is fine; returns NULL */
struct value *value_copy(const struct value *value);
bool value_equal(const struct value *a, const struct value *b); /* structs: in any order */

/* Appends the item, which the array now owns. Returns the array. */
struct value *value_append(struct value *array, struct value *item);
struct value *value_append_string(struct value *array, const char *s);

/* Sets or replaces a member; the struct owns the value (the name is copied). Returns the struct. */
struct value *value_set(struct value *record, const char *name, struct value *value);
/* For records that are made by the thousand, instead of value_set, before any other member is set:
 * a name that the record does not have yet, and that outlives it. Not copied, and not looked up. */
struct value *value_add(struct value *record, const char *name, struct value *value);
struct value *value_set_string(struct value *record, const char *name, const char *s);
struct value *value_set_int(struct value *record, const char *name, int64_t integer);
struct value *value_set_bool(struct value *record, const char *name, bool boolean);

/* Removes a member; false when there was none. */
bool value_unset(struct value *record, const char *name);

/* Takes a member out; the caller frees it. NULL when there was none. */
struct value *value_take(struct value *record, const char *name);
/* Takes an item out; the caller frees it. A nil stays in its place. */
struct value *value_take_item(struct value *array, size_t i);

/* The member's value, owned by the struct; NULL if there is none (or record is not a struct). */
struct value *value_find(const struct value *record, const char *name);

/* Readers with a fallback: the content when value (or the member) exists and has that type. */
const char *value_string(const struct value *value, const char *fallback);
const char *value_find_string(const struct value *record, const char *name, const char *fallback);
int64_t value_find_int(const struct value *record, const char *name, int64_t fallback);
bool value_find_bool(const struct value *record, const char *name, bool fallback);

/* Whether an array holds the string. */
bool value_contains_string(const struct value *array, const char *s);
/* Where; -1: it does not. */
int64_t value_index_of_string(const struct value *array, const char *s);

/* "string", "int", "bool", "double", "datetime", "array", "struct", "nil". */
const char *value_type_name(enum value_type type);

/* "20260821T02:00:23Z" (XenAPI's form of dateTime.iso8601); the caller frees it. */
char *datetime_format(int64_t seconds);
/* That form, or with hyphens in the date; the Z may be missing. -EINVAL otherwise. */
int datetime_parse(const char *s, int64_t *ret_seconds);

DEFINE_CLEANUP(struct value *, value_free)
#define CLEANUP_VALUE CLEANUP(cleanup_value_free)

#endif
