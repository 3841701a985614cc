/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/disks.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/parse.h"
#include "cli/output.h"
#include "cli/record.h"

#include <inttypes.h>
#include <string.h>

#define MAX_DISKS 256

struct value *disks_read(const struct value *map, const char *prefix)
{
	static const struct json_limits limits = {.max_depth = 4, .max_values = 400};
	struct value *disks = value_new_array();

	for (unsigned i = 0; i < MAX_DISKS; i++) {
		char *key CLEANUP_FREE = xasprintf("%s%u", prefix, i);
		const char *text = value_find_string(map, key, NULL);
		struct value *disk = NULL;
		if (text && json_decode(text, strlen(text), &limits, &disk, NULL) == 0)
			value_append(disks, disk);
	}
	return disks;
}

static void add_size(struct table *table, uint64_t bytes)
{
	char *text CLEANUP_FREE = output_size(bytes);

	table_add(table, text);
}

struct line {
	const char *name;
	uint64_t virtual_size;
	uint64_t allocated;
	uint64_t sent;
	double seconds;
};

static void add_line(struct table *table, const struct line *line)
{
	char *seconds CLEANUP_FREE = xasprintf("%.1f", line->seconds);
	char *rate CLEANUP_FREE =
		line->seconds > 0
			? xasprintf("%.1f", (double)line->sent / (1 << 20) / line->seconds)
			: xstrdup("-");

	table_add(table, line->name);
	add_size(table, line->virtual_size);
	add_size(table, line->allocated);
	add_size(table, line->sent);
	table_add(table, seconds);
	table_add(table, rate);
}

static uint64_t figure(const struct value *disk, const char *name)
{
	int64_t n = record_int(disk, name, 0);

	return n < 0 ? 0 : (uint64_t)n;
}

/* A snapshot's disk has the name of the one that it was taken of. The caller frees it. */
static char *name_of(const struct value *disk)
{
	const char *name = value_find_string(disk, "name", value_find_string(disk, "vdi", "?"));
	const char *snapshot = value_find_string(disk, "snapshot", NULL);

	return snapshot ? xasprintf("%s (snapshot %s)", name, snapshot) : xstrdup(name);
}

void disks_write(const struct value *disks, struct buf *out)
{
	struct table *table CLEANUP_TABLE = table_new();
	struct line all = {.name = "all"};

	if (disks->array.n_items == 0)
		return;
	table_add_column(table, "DISK", TABLE_LEFT);
	table_add_column(table, "VIRTUAL", TABLE_RIGHT);
	table_add_column(table, "ALLOCATED", TABLE_RIGHT);
	table_add_column(table, "SENT", TABLE_RIGHT);
	table_add_column(table, "SECONDS", TABLE_RIGHT);
	table_add_column(table, "MIB/S", TABLE_RIGHT);
	for (size_t i = 0; i < disks->array.n_items; i++) {
		const struct value *disk = disks->array.items[i];
		char *name CLEANUP_FREE = name_of(disk);
		const struct line line = {
			.name = name,
			.virtual_size = figure(disk, "virtual"),
			.allocated = figure(disk, "allocated"),
			.sent = figure(disk, "sent"),
			.seconds = record_double(disk, "seconds", 0),
		};
		add_line(table, &line);
		all.virtual_size += line.virtual_size;
		all.allocated += line.allocated;
		all.sent += line.sent;
		all.seconds += line.seconds;
	}
	if (disks->array.n_items > 1)
		add_line(table, &all);
	table_write(table, out);
}

static void add_range(struct table *table, const char *name, const struct value *range)
{
	char *offset CLEANUP_FREE = xasprintf("%" PRIu64, figure(range, "offset"));
	char *length CLEANUP_FREE = xasprintf("%" PRIu64, figure(range, "length"));

	table_add(table, name);
	table_add(table, offset);
	table_add(table, length);
	table_add(table, value_find_string(range, "error", "?"));
}

void disks_write_unreadable(const struct value *disks, struct buf *out)
{
	struct table *table CLEANUP_TABLE = table_new();
	uint64_t bytes = 0, n_more = 0;

	table_add_column(table, "UNREADABLE", TABLE_LEFT);
	table_add_column(table, "OFFSET", TABLE_RIGHT);
	table_add_column(table, "LENGTH", TABLE_RIGHT);
	table_add_column(table, "ERROR", TABLE_LEFT);
	for (size_t i = 0; i < disks->array.n_items; i++) {
		const struct value *disk = disks->array.items[i];
		const struct value *ranges = value_find(disk, "ranges");
		size_t n = ranges && ranges->type == VALUE_ARRAY ? ranges->array.n_items : 0;
		for (size_t j = 0; j < n; j++)
			add_range(table,
				value_find_string(
					disk, "name", value_find_string(disk, "vdi", "?")),
				ranges->array.items[j]);
		bytes += figure(disk, "bytes");
		n_more += figure(disk, "n_ranges") - MIN(n, figure(disk, "n_ranges"));
	}
	if (!bytes)
		return;
	buf_append_char(out, '\n');
	table_write(table, out);
	if (n_more)
		buf_printf(out, "and %" PRIu64 " more\n", n_more);
	buf_printf(out,
		"%" PRIu64 " bytes could not be read at the source and are zeros at the "
		"destination\n",
		bytes);
}
