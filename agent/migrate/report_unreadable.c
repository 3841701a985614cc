/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/report.h"

#include "base/alloc.h"
#include "base/json.h"

#include <string.h>

/* Ranges of a disk that are shown; how many there are is always said. */
#define SHOWN 32

static struct value *range_of(const struct unreadable_row *row)
{
	struct value *range = value_new_struct();

	value_set_int(range, "offset", (int64_t)row->extent.offset);
	value_set_int(range, "length", (int64_t)row->extent.length);
	value_set_string(range, "error", strerror(row->error));
	return range;
}

/* As JSON; "" when nothing is. The caller frees it. */
static char *describe(
	const struct value *plan, const struct unreadable_row *rows, size_t n, uint64_t *ret_bytes)
{
	struct value *disk CLEANUP_VALUE = value_new_struct();
	struct value *ranges = value_new_array();
	struct buf text CLEANUP_BUF = BUF_INIT;

	*ret_bytes = 0;
	for (size_t i = 0; i < n; i++) {
		*ret_bytes += rows[i].extent.length;
		if (i < SHOWN)
			value_append(ranges, range_of(&rows[i]));
	}
	value_set_string(disk, "vdi", value_find_string(plan, "vdi_uuid", ""));
	value_set_string(disk, "name", value_find_string(plan, "name", ""));
	value_set_int(disk, "bytes", (int64_t)*ret_bytes);
	value_set_int(disk, "n_ranges", (int64_t)n);
	value_set(disk, "ranges", ranges);
	if (!n)
		return xstrdup("");
	json_encode(disk, &text);
	return buf_take_string(&text);
}

void report_add_unreadable(struct migration *m, struct value *fields, struct value *entries)
{
	char *on_read_error CLEANUP_FREE = migration_get_string(m, "on_read_error");
	struct value *plan CLEANUP_VALUE = migration_get(m, "disks");
	struct value *disks CLEANUP_VALUE = value_new_struct();
	uint64_t total = 0;

	if (!on_read_error || strcmp(on_read_error, "zero") != 0)
		return;
	for (size_t i = 0; i < m->n_disks; i++) {
		struct unreadable_row *rows CLEANUP_FREE = NULL;
		char *number CLEANUP_FREE = xasprintf("%zu", i);
		char *key CLEANUP_FREE = xasprintf("ferry:unreadable:%zu", i);
		uint64_t bytes = 0;
		size_t n = 0;
		/* What is shown stays. */
		if (unreadable_list(
			    m->params->storage->agent, m->uuid, (unsigned)i, &rows, &n, NULL) < 0)
			return;
		char *text CLEANUP_FREE = describe(plan->array.items[i], rows, n, &bytes);
		if (n)
			value_set_string(disks, number, text);
		value_set_string(entries, key, text);
		total += bytes;
	}
	value_set(fields, "unreadable", TAKE_PTR(disks));
	value_set_int(fields, "bytes_unreadable", (int64_t)total);
}
