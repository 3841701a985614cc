/* SPDX-License-Identifier: Apache-2.0 */
/* The list of XenAPI classes and their fields, each named once. Tables, records, accessors, events,
 * system.listMethods and docs/api.md come from it. A new field is one line in fields_*.h. */
#ifndef FERRY_SCHEMA_CLASSES_H
#define FERRY_SCHEMA_CLASSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum field_type {
	FIELD_STRING,
	FIELD_INT,
	FIELD_BOOL,
	FIELD_FLOAT,
	FIELD_DATETIME,
	FIELD_ENUM,       /* of: "Halted|Paused|Running" */
	FIELD_REF,        /* of: class name */
	FIELD_SET_STRING, /* sets of enums too */
	FIELD_SET_INT,
	FIELD_SET_REF, /* of: class name; stored */
	FIELD_DERIVED, /* of: "VBD.VM": the set of refs of VBDs whose VM is this object; not stored
			*/
	FIELD_MAP,     /* string -> string (refs and enums too) */
	FIELD_MAP_ANY, /* other maps; stored as JSON, shown as given, default {} */
};

enum field_access {
	FIELD_RO,   /* the daemon sets it */
	FIELD_CTOR, /* may be given to Class.create, read-only afterwards */
	FIELD_RW,   /* CTOR and set_, add_to_ ... */
};

struct class_field {
	const char *name;
	enum field_type type;
	enum field_access access;
	/* See field_type; NULL else. A class that is not in the list is one that this service does
	 * not have: the ref is always null, the set always empty. */
	const char *of;
	/* Default as text (sets and maps: JSON). NULL: "", 0, false, {}, [], OpaqueRef:NULL, 1970.
	 */
	const char *fallback;
	bool owner;      /* FIELD_REF: the object cannot be destroyed while this points at it */
	const char *doc; /* one clause for docs/api.md; may be NULL */
};

struct class
{
	const char *name; /* as on the wire: "VM", "host_metrics" */
	const char *doc;
	const struct class_field *fields; /* first is always uuid */
	size_t n_fields;
	bool hidden; /* no get_all*, no events (session) */
};

extern const struct class classes[];
extern const size_t n_classes;

/* NULL when there is none. The name is case-sensitive in class_find, not in class_find_nocase. */
const struct class *class_find(const char *name);
const struct class *class_find_nocase(const char *name);
const struct class_field *class_field_find(const struct class *class, const char *name);
bool class_has_field(const struct class *class, const char *name);

/* "string", "enum (a, b)", "VM ref", "set of VBD refs" ... as docs/api.md shows it; the caller
 * frees it. */
char *class_field_type_text(const struct class_field *field);
/* Every class with a table of its fields, as Markdown: the classes' part of docs/api.md. */
void class_list_print_markdown(FILE *out);

#endif
