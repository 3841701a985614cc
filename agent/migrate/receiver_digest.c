/* SPDX-License-Identifier: Apache-2.0 */
/* What the disks hold, for the sender to compare. Reads files and memory only: it neither waits for
 * other calls nor for a database, as a guest may be paused meanwhile. */
#include "agent/copy/digest.h"
#include "agent/copy/pass.h"
#include "agent/migrate/receiver.h"
#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Digits of an uint64, with the space behind it. */
#define MAX_NUMBER 21

static char *to_hex(const unsigned char *bytes, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	char *text = xcalloc(2 * n + 1, 1);

	for (size_t i = 0; i < n; i++) {
		text[2 * i] = hex[bytes[i] >> 4];
		text[2 * i + 1] = hex[bytes[i] & 15];
	}
	text[2 * n] = '\0';
	return text;
}

static bool is_zero(const unsigned char *bytes, size_t n)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0;
}

static int find_disk(
	struct migration *m, int64_t disk, char **ret_path, uint64_t *ret_size, struct fault *fault)
{
	SCOPE_LOCK(&m->lock);
	const struct value *disks = value_find(m->document, "disks");

	if (!disks || disk < 0 || (uint64_t)disk >= disks->array.n_items)
		return fault_text(
			fault, -EINVAL, "migration %s has no disk %lld", m->uuid, (long long)disk);
	*ret_path = xstrdup(value_find_string(disks->array.items[disk], "path", ""));
	*ret_size = (uint64_t)value_find_int(disks->array.items[disk], "size", 0);
	return 0;
}

int receiver_digest(struct migration *m, int64_t disk, int64_t span, struct value **ret_result,
	struct fault *fault)
{
	char *path CLEANUP_FREE = NULL;
	uint64_t size = 0;
	unsigned char digests[DIGEST_SPAN_BYTES];

	int r = find_disk(m, disk, &path, &size, fault);
	if (r < 0)
		return r;
	if (span < 0 || (uint64_t)span >= digest_n_spans(size))
		return fault_text(fault, -EINVAL, "disk %lld has no span %lld", (long long)disk,
			(long long)span);
	r = digest_file_span(path, size, (uint64_t)span, m->cancel, digests, fault);
	if (r < 0)
		return r;
	char *text CLEANUP_FREE = to_hex(digests, sizeof(digests));
	*ret_result = value_new_struct();
	value_set_string(*ret_result, "digests", is_zero(digests, sizeof(digests)) ? "" : text);
	return 0;
}

/* --- Extents ------------------------------------------------------------------------------------
 */

struct extents {
	struct extent *items;
	size_t n;
	uint64_t n_bytes;
};

static void extents_clear(struct extents *extents)
{
	free(extents->items);
}

/* The number at *at, and what follows its space; *at becomes NULL behind the last one. */
static int take_number(const char **at, uint64_t *ret_number)
{
	char text[MAX_NUMBER + 1];
	size_t length = strcspn(*at, " ");

	if (length == 0 || length > MAX_NUMBER)
		return -EINVAL;
	memcpy(text, *at, length);
	text[length] = '\0';
	*at = (*at)[length] ? *at + length + 1 : NULL;
	return parse_uint64(text, ret_number);
}

static int check_extent(const struct extents *extents, const struct extent *extent,
	uint64_t size_bytes, struct fault *fault)
{
	if (extents->n >= PASS_MAX_EXTENTS)
		return fault_text(fault, -E2BIG, "extents: more than %d", PASS_MAX_EXTENTS);
	if (extent->length == 0 || extent->length > PASS_MAX_EXTENT ||
		extent->offset > size_bytes || extent->length > size_bytes - extent->offset)
		return fault_text(fault, -ERANGE,
			"extents: number %zu, %" PRIu64 " bytes at %" PRIu64
			": must be 1 to %ju bytes within a disk of %" PRIu64,
			extents->n, extent->length, extent->offset, (uintmax_t)PASS_MAX_EXTENT,
			size_bytes);
	if (extents->n_bytes + extent->length > PASS_MAX_BYTES)
		return fault_text(fault, -E2BIG, "extents: more than %ju bytes in all",
			(uintmax_t)PASS_MAX_BYTES);
	return 0;
}

/* "offset length offset length ...", one space between. */
static int parse_extents(
	const char *text, uint64_t size_bytes, struct extents *ret_extents, struct fault *fault)
{
	const char *at = text;

	while (at) {
		struct extent extent = {0};
		if (take_number(&at, &extent.offset) < 0 || !at ||
			take_number(&at, &extent.length) < 0)
			return fault_text(fault, -EINVAL,
				"extents: number %zu: must be \"offset length\" in decimal, with "
				"one space between and behind",
				ret_extents->n);
		int r = check_extent(ret_extents, &extent, size_bytes, fault);
		if (r < 0)
			return r;
		ret_extents->items = xrealloc(
			ret_extents->items, ret_extents->n + 1, sizeof(*ret_extents->items));
		ret_extents->items[ret_extents->n++] = extent;
		ret_extents->n_bytes += extent.length;
	}
	return 0;
}

int receiver_digest_extents(struct migration *m, int64_t disk, const char *text,
	struct value **ret_result, struct fault *fault)
{
	struct extents extents CLEANUP(extents_clear) = {0};
	enum migration_state state = migration_state(m);
	char *path CLEANUP_FREE = NULL;
	uint64_t size = 0;

	if (state != STATE_RECEIVING && state != STATE_SEALED)
		return receiver_refuse(m, "digest", fault);
	int r = find_disk(m, disk, &path, &size, fault);
	if (r == 0)
		r = parse_extents(text, size, &extents, fault);
	if (r < 0)
		return r;
	unsigned char *digests CLEANUP_FREE = xcalloc(extents.n, DIGEST_BYTES);
	r = digest_file_extents(path, size, extents.items, extents.n, m->cancel, digests, fault);
	if (r < 0)
		return r;
	*ret_result = value_new_struct();
	char *hex CLEANUP_FREE = to_hex(digests, extents.n * DIGEST_BYTES);
	value_set_string(*ret_result, "digests", hex);
	return 0;
}
