/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/output.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

struct column {
	char *title;
	enum table_align align;
};

struct table {
	struct column *columns;
	size_t n_columns;
	char **cells;
	size_t n_cells;
};

struct table *table_new(void)
{
	return xcalloc(1, sizeof(struct table));
}

struct table *table_free(struct table *table)
{
	if (!table)
		return NULL;
	for (size_t i = 0; i < table->n_columns; i++)
		free(table->columns[i].title);
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->columns);
	free(table->cells);
	free(table);
	return NULL;
}

void table_add_column(struct table *table, const char *title, enum table_align align)
{
	table->columns = xrealloc(table->columns, table->n_columns + 1, sizeof(*table->columns));
	table->columns[table->n_columns++] =
		(struct column){.title = xstrdup(title), .align = align};
}

void table_add(struct table *table, const char *text)
{
	table->cells = xrealloc(table->cells, table->n_cells + 1, sizeof(*table->cells));
	table->cells[table->n_cells++] = output_clean(text);
}

char *output_clean(const char *text)
{
	char *clean = xstrdup(text);

	for (unsigned char *c = (unsigned char *)clean; *c; c++) {
		if (*c < ' ' || *c == 0x7f)
			*c = '?';
		/* U+0080..U+009F: terminals obey these too. */
		if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
			c[0] = c[1] = '?';
	}
	return clean;
}

/* In characters; those that are two columns wide, or none, count as one. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void write_cell(
	const char *text, enum table_align align, size_t width, bool last, struct buf *out)
{
	size_t padding = width - width_of(text);

	if (align == TABLE_LEFT)
		buf_append_string(out, text);
	if (align == TABLE_RIGHT || !last)
		buf_printf(out, "%*s", (int)padding, "");
	if (align == TABLE_RIGHT)
		buf_append_string(out, text);
	buf_append_string(out, last ? "\n" : "  ");
}

void table_write(const struct table *table, struct buf *out)
{
	size_t *widths CLEANUP_FREE = xcalloc(table->n_columns, sizeof(*widths));
	size_t n = table->n_columns;

	if (n == 0)
		return;
	for (size_t i = 0; i < n; i++)
		widths[i] = width_of(table->columns[i].title);
	for (size_t i = 0; i < table->n_cells; i++)
		widths[i % n] = MAX(widths[i % n], width_of(table->cells[i]));
	for (size_t i = 0; i < n; i++)
		write_cell(table->columns[i].title, table->columns[i].align, widths[i], i == n - 1,
			out);
	for (size_t i = 0; i < table->n_cells; i++)
		write_cell(table->cells[i], table->columns[i % n].align, widths[i % n],
			i % n == n - 1, out);
}

char *output_size(uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	if (bytes < 1024)
		return xasprintf("%" PRIu64 " B", bytes);
	while (value >= 1023.95 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	return xasprintf("%.1f %s", value, units[unit]);
}

char *output_duration(uint64_t seconds)
{
	uint64_t hours = seconds / 3600;
	unsigned minutes = (unsigned)(seconds / 60 % 60);
	unsigned rest = (unsigned)(seconds % 60);

	return hours ? xasprintf("%" PRIu64 ":%02u:%02u", hours, minutes, rest)
		     : xasprintf("%u:%02u", minutes, rest);
}

char *output_time(int64_t seconds)
{
	time_t when = (time_t)seconds;
	struct tm utc;
	char text[48];

	if (seconds == 0 || !gmtime_r(&when, &utc))
		return xstrdup("-");
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%SZ", &utc);
	return xstrdup(text);
}
