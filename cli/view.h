/* SPDX-License-Identifier: Apache-2.0 */
/* How the objects of a class are listed and shown: one row per column. */
#ifndef FERRY_CLI_VIEW_H
#define FERRY_CLI_VIEW_H

#include "cli/context.h"
#include "cli/object.h"
#include "cli/output.h"

enum column_kind {
	COLUMN_TEXT,
	COLUMN_SIZE, /* bytes */
	COLUMN_RATE, /* bytes a second */
	COLUMN_INT,
	COLUMN_BOOL,    /* "yes", "no" */
	COLUMN_BOOL_AT, /* the same, of the object that a ref points at: of is "class.field" */
	COLUMN_NAME,    /* the name of the object of class `of` that a ref points at */
	COLUMN_COUNT,   /* how many a set has */
	COLUMN_PERCENT, /* of a float 0 to 1 */
	COLUMN_TIME,
	COLUMN_DURATION, /* seconds; negative: unknown */
	COLUMN_MAP,      /* key=value, ... */
	COLUMN_SET,      /* a, b, ... */
};

struct column {
	const char *title;
	const char *field;
	enum column_kind kind;
	const char *of;
};

struct view {
	const char *class;
	const struct column *columns;
	size_t n_columns;
	size_t n_listed; /* the first so many are columns of `list`; `show` has them all */
	/* Whether `list` has the object; NULL: all. */
	bool (*is_listed)(const struct value *record);
};

#define VIEW_COLUMNS(list) .columns = (list), .n_columns = ARRAY_SIZE(list)

int view_list(struct context *context, const struct view *view, struct fault *fault);
/* The object that the first operand names. */
int view_show(struct context *context, const struct view *view, struct fault *fault);
/* The same in steps, for commands that show more: the object, then its lines. */
int view_find(struct context *context, const struct view *view, struct object *object,
	struct fault *fault);
int view_write(struct context *context, const struct view *view, const struct value *record,
	struct fault *fault);
/* A table of some records (refs into all), with the listed columns; nothing when there is none. */
int view_write_some(struct context *context, const struct view *view, const char *heading,
	const struct value *refs, struct fault *fault);

#endif
