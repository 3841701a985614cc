/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/salvage.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define PAGE UINT64_C(4096)

struct salvage {
	struct agent_db *db;
	char *migration;
	unsigned disk;
	atomic_size_t n_lost; /* ranges; read without the lock */
	pthread_mutex_t lock; /* protects what follows, and the order of changes to the rows */
	struct unreadable_row *rows;
	uint64_t bytes; /* in them */
	uint64_t usec;  /* spent */
};

/* --- What is lost ----------------------------------------------------------------------------- */

/* Holds the lock. */
static int load(struct salvage *salvage, struct fault *fault)
{
	struct unreadable_row *rows = NULL;
	size_t n = 0;
	int r = unreadable_list(salvage->db, salvage->migration, salvage->disk, &rows, &n, fault);

	if (r < 0)
		return r;
	free(salvage->rows);
	salvage->rows = rows;
	salvage->bytes = 0;
	for (size_t i = 0; i < n; i++)
		salvage->bytes += rows[i].extent.length;
	salvage->n_lost = n;
	return 0;
}

static int lose(struct salvage *salvage, struct extent extent, int error, struct fault *fault)
{
	SCOPE_LOCK(&salvage->lock);
	int r = unreadable_add(
		salvage->db, salvage->migration, salvage->disk, extent, error, fault);
	if (r == 0)
		r = load(salvage, fault);
	if (r < 0)
		return r;
	log_warn("SOURCE-UNREADABLE",
		"migration=%s disk=%u offset=%" PRIu64 " length=%" PRIu64
		" error=\"%s\": it is zeros at the destination",
		salvage->migration, salvage->disk, extent.offset, extent.length, strerror(error));
	return 0;
}

static bool overlaps(const struct unreadable_row *row, struct extent extent)
{
	return row->extent.offset < extent.offset + extent.length &&
	       extent.offset < row->extent.offset + row->extent.length;
}

int salvage_is_read(struct salvage *salvage, struct extent extent, struct fault *fault)
{
	bool any = false;

	if (!salvage || !salvage->n_lost)
		return 0;
	SCOPE_LOCK(&salvage->lock);
	for (size_t i = 0; !any && i < salvage->n_lost; i++)
		any = overlaps(&salvage->rows[i], extent);
	if (!any)
		return 0;
	log_info("SOURCE-READABLE",
		"migration=%s disk=%u offset=%" PRIu64 " length=%" PRIu64
		": what could not be read of it before can be now",
		salvage->migration, salvage->disk, extent.offset, extent.length);
	int r = unreadable_remove(salvage->db, salvage->migration, salvage->disk, extent, fault);
	return r < 0 ? r : load(salvage, fault);
}

/* --- Reading in pieces ------------------------------------------------------------------------ */

/* One request that failed. */
struct attempt {
	struct salvage *salvage;
	const struct salvage_source *from;
	struct endpoint *direct; /* of a file: past the page cache; opened when it is needed */
	struct extent extent;
	unsigned char *data;
	struct extent lost; /* not stored yet; length 0: none */
	uint64_t begun_usec;
	struct fault *fault;
};

static int store_lost(struct attempt *attempt)
{
	struct extent lost = attempt->lost;

	attempt->lost.length = 0;
	return lost.length ? lose(attempt->salvage, lost, EIO, attempt->fault) : 0;
}

/* The sector alone cannot be read. */
static int lose_sector(struct attempt *attempt, struct extent sector)
{
	struct extent *lost = &attempt->lost;
	int r = 0;

	memset(attempt->data + (sector.offset - attempt->extent.offset), 0, (size_t)sector.length);
	if (lost->length && lost->offset + lost->length != sector.offset)
		r = store_lost(attempt);
	if (!lost->length)
		lost->offset = sector.offset;
	lost->length += sector.length;
	return r;
}

/* Too much of it is lost, or took too long. What was found until now is stored. */
static int check_limits(struct attempt *attempt)
{
	struct salvage *salvage = attempt->salvage;
	uint64_t now = clock_now_usec();
	int r = 0;

	if (salvage->n_lost >= SALVAGE_MAX_RANGES || attempt->lost.length >= SALVAGE_MAX_BYTES)
		r = store_lost(attempt);
	if (r < 0)
		return r;
	SCOPE_LOCK(&salvage->lock);
	salvage->usec += now - attempt->begun_usec;
	attempt->begun_usec = now;
	if (salvage->n_lost <= SALVAGE_MAX_RANGES &&
		salvage->bytes + attempt->lost.length <= SALVAGE_MAX_BYTES &&
		salvage->usec <= SALVAGE_MAX_USEC)
		return 0;
	return fault_text(attempt->fault, -EIO,
		"%s, and too much of the disk is like that for options:on_read_error=zero: %zu "
		"ranges with %" PRIu64 " bytes, after %" PRIu64 " s of trying (at most %d, %" PRIu64
		" and %" PRIu64 "): replace the disk, or restore it from a backup",
		endpoint_error(attempt->direct ? attempt->direct : attempt->from->source),
		(size_t)salvage->n_lost, salvage->bytes + attempt->lost.length,
		salvage->usec / USEC_PER_SEC, SALVAGE_MAX_RANGES, SALVAGE_MAX_BYTES,
		SALVAGE_MAX_USEC / USEC_PER_SEC);
}

static int read_piece(struct attempt *attempt, struct endpoint *source, struct extent piece)
{
	int r = endpoint_read(source, piece,
		attempt->data + (piece.offset - attempt->extent.offset), attempt->from->cancel,
		attempt->fault);

	return r == 0 && attempt->from->sends
		       ? salvage_is_read(attempt->salvage, piece, attempt->fault)
		       : r;
}

/* The page cache would make a page of a bad sector. A file system without O_DIRECT has no other. */
static void open_direct(struct attempt *attempt)
{
	struct endpoint_spec spec = *attempt->from->spec;

	spec.direct = true;
	if (spec.kind == ENDPOINT_FILE && !attempt->from->spec->direct && !attempt->direct)
		endpoint_open(&spec, attempt->from->cancel, &attempt->direct, NULL);
}

static int read_sectors(struct attempt *attempt, struct extent page)
{
	uint64_t unit = endpoint_block_size(attempt->from->source);
	struct extent sector = {page.offset, unit};
	int r = 0;

	open_direct(attempt);
	for (; r == 0 && sector.offset < page.offset + page.length; sector.offset += unit) {
		r = read_piece(
			attempt, attempt->direct ? attempt->direct : attempt->from->source, sector);
		if (r == -EIO)
			r = lose_sector(attempt, sector);
		if (r == 0)
			r = check_limits(attempt);
	}
	return r;
}

static int read_pages(struct attempt *attempt)
{
	uint64_t at = attempt->extent.offset, end = at + attempt->extent.length;
	uint64_t step = MAX(PAGE, endpoint_block_size(attempt->from->source));
	uint64_t ignored;
	/* A file that was cut short fails here. */
	int r = endpoint_first_data(
		attempt->from->source, attempt->extent, &ignored, attempt->fault);

	while (r == 0 && at < end) {
		struct extent page = {at, MIN(step - at % step, end - at)};
		r = read_piece(attempt, attempt->from->source, page);
		if (r == -EIO)
			r = read_sectors(attempt, page);
		if (r == 0 && attempt->from->idle)
			r = attempt->from->idle(attempt->from->arg, attempt->fault);
		at += page.length;
	}
	return r < 0 ? r : store_lost(attempt);
}

int salvage_again(struct salvage *salvage, const struct salvage_source *from, struct extent extent,
	void *data, int error, struct fault *fault)
{
	struct attempt attempt = {.salvage = salvage,
		.from = from,
		.extent = extent,
		.data = data,
		.begun_usec = clock_now_usec(),
		.fault = fault};

	if (!salvage || error != -EIO)
		return error;
	int r = read_pages(&attempt);
	endpoint_close(attempt.direct);
	if (r == 0)
		fault_clear(fault);
	return r;
}

int salvage_read(struct salvage *salvage, const struct salvage_source *from, struct extent extent,
	void *data, struct fault *fault)
{
	int r = endpoint_read(from->source, extent, data, from->cancel, fault);

	if (r < 0)
		return salvage_again(salvage, from, extent, data, r, fault);
	return from->sends ? salvage_is_read(salvage, extent, fault) : 0;
}

/* --- Life ------------------------------------------------------------------------------------- */

int salvage_open(struct agent_db *db, const char *migration, unsigned disk,
	struct salvage **ret_salvage, struct fault *fault)
{
	struct salvage *salvage CLEANUP_SALVAGE = xcalloc(1, sizeof(*salvage));

	salvage->db = db;
	salvage->migration = xstrdup(migration);
	salvage->disk = disk;
	pthread_mutex_init(&salvage->lock, NULL);
	SCOPE_LOCK(&salvage->lock);
	int r = load(salvage, fault);
	if (r == 0)
		*ret_salvage = TAKE_PTR(salvage);
	return r;
}

struct salvage *salvage_free(struct salvage *salvage)
{
	if (!salvage)
		return NULL;
	pthread_mutex_destroy(&salvage->lock);
	free(salvage->rows);
	free(salvage->migration);
	free(salvage);
	return NULL;
}
