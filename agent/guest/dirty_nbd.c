/* SPDX-License-Identifier: Apache-2.0 */
/* One dirty bitmap over NBD (qemu: docs/interop/nbd.txt, "qemu:dirty-bitmap"). QEMU is believed
 * nothing: it may say anything, or nothing at all. */
#include "agent/guest/dirty_internal.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <libnbd.h>
#include <string.h>

#define ANSWER_USEC  (5 * USEC_PER_SEC)
#define TOTAL_USEC   (60 * USEC_PER_SEC)
#define GOODBYE_USEC USEC_PER_SEC
/* NBD has 32 bits for a request's length. */
#define MAX_REQUEST UINT64_C(0xfffff000)
#define DIRTY_FLAG  1
#define SECTOR      512

struct reading {
	struct nbd_handle *nbd;
	const struct dirty_source *source;
	char *context;
	uint64_t at; /* up to here everything is known */
	/* Not yet handed over; the last one may still grow. */
	struct extent *extents;
	size_t n;
	size_t capacity;
	uint64_t waited_usec;
};

static bool is_gone(struct reading *reading)
{
	return nbd_aio_is_closed(reading->nbd) != 0 || nbd_aio_is_dead(reading->nbd) != 0;
}

/* What libnbd says of its last call. */
static int explain(struct reading *reading, struct fault *fault)
{
	const char *text = nbd_get_error();
	int error = nbd_get_errno();

	if (is_gone(reading))
		error = ENOTCONN;
	return fault_text(fault, error > 0 ? -error : -EPROTO,
		"Dirty bitmap %s: QEMU's NBD server at %s: %s", reading->source->bitmap,
		reading->source->socket, text ? text : "(no reason)");
}

static int complain(struct reading *reading, const char *what, struct fault *fault)
{
	return fault_text(fault, -EPROTO, "Dirty bitmap %s: QEMU's NBD server at %s %s",
		reading->source->bitmap, reading->source->socket, what);
}

/* Until something has happened on the connection. */
static int step(struct reading *reading, struct fault *fault)
{
	uint64_t before = clock_now_usec();
	int r = nbd_poll(reading->nbd, clock_poll_timeout(before + ANSWER_USEC));

	reading->waited_usec += clock_now_usec() - before;
	if (r < 0)
		return explain(reading, fault);
	if (r == 0 || reading->waited_usec > TOTAL_USEC)
		return fault_text(fault, -ETIMEDOUT,
			"Dirty bitmap %s: QEMU's NBD server at %s does not answer in time",
			reading->source->bitmap, reading->source->socket);
	return 0;
}

/* --- Connection ---------------------------------------------------------------------------------
 */

static int reading_connect(struct reading *reading, struct fault *fault)
{
	const struct dirty_source *source = reading->source;
	struct nbd_handle *nbd = reading->nbd = nbd_create();

	if (!nbd)
		return fault_text(fault, -ENOMEM, "libnbd: %s", nbd_get_error());
	if (nbd_set_export_name(nbd, source->export) < 0 ||
		nbd_add_meta_context(nbd, reading->context) < 0 ||
		nbd_aio_connect_unix(nbd, source->socket) < 0)
		return explain(reading, fault);
	while (nbd_aio_is_connecting(nbd)) {
		int r = step(reading, fault);
		if (r < 0)
			return r;
	}
	if (nbd_can_meta_context(nbd, reading->context) == 1)
		return 0;
	return is_gone(reading) ? explain(reading, fault)
				: complain(reading, "does not offer it", fault);
}

/* The server has let go of the bitmap when it closes its end. */
static void reading_close(struct reading *reading)
{
	uint64_t deadline = clock_deadline(GOODBYE_USEC);

	if (!reading->nbd)
		return;
	if (nbd_aio_is_ready(reading->nbd) == 1 && nbd_aio_disconnect(reading->nbd, 0) == 0)
		while (!is_gone(reading))
			if (nbd_poll(reading->nbd, clock_poll_timeout(deadline)) <= 0)
				break;
	nbd_close(reading->nbd);
}

static void reading_clear(struct reading *reading)
{
	reading_close(reading);
	free(reading->extents);
	free(reading->context);
}

/* --- Extents ------------------------------------------------------------------------------------
 */

/* 0 or an errno, positive, as libnbd wants it. */
static int add_extent(struct reading *reading, uint64_t offset, uint64_t length)
{
	struct extent *last = reading->n ? &reading->extents[reading->n - 1] : NULL;

	if (last && last->offset + last->length == offset) {
		last->length += length;
		return 0;
	}
	if (reading->n == reading->capacity) {
		size_t capacity = reading->capacity ? 2 * reading->capacity : 256;
		struct extent *grown = realloc(reading->extents, capacity * sizeof(*grown));
		if (!grown)
			return ENOMEM;
		reading->extents = grown;
		reading->capacity = capacity;
	}
	reading->extents[reading->n++] = (struct extent){.offset = offset, .length = length};
	return 0;
}

/* One reply: pairs of length and flags. The proxy may be larger than the disk. */
static int take_reply(void *arg, const char *context, uint64_t offset, uint32_t *entries,
	size_t n_entries, int *error)
{
	struct reading *reading = arg;
	uint64_t size = reading->source->size_bytes;
	int r = 0;

	if (strcmp(context, reading->context) != 0 || offset != reading->at)
		r = EPROTO;
	for (size_t i = 0; i + 1 < n_entries && r == 0 && reading->at < size; i += 2) {
		uint64_t length = MIN((uint64_t)entries[i], size - reading->at);
		if (length == 0 || length % SECTOR)
			r = EPROTO;
		else if (entries[i + 1] & DIRTY_FLAG)
			r = add_extent(reading, reading->at, length);
		reading->at += length;
	}
	if (r == 0)
		return 0;
	*error = r;
	return -1;
}

/* One request, and everything that it brought; a server may answer for less than was asked. */
static int ask(struct reading *reading, struct fault *fault)
{
	uint64_t before = reading->at;
	uint64_t length = MIN(reading->source->size_bytes - before, MAX_REQUEST);
	nbd_extent_callback callback = {.callback = take_reply, .user_data = reading};
	int64_t cookie = nbd_aio_block_status(
		reading->nbd, length, before, callback, NBD_NULL_COMPLETION, 0);
	int r = 0;

	if (cookie < 0)
		return explain(reading, fault);
	while ((r = nbd_aio_command_completed(reading->nbd, (uint64_t)cookie)) == 0) {
		r = step(reading, fault);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return explain(reading, fault);
	if (reading->at == before)
		return complain(reading, "told nothing about it", fault);
	return 0;
}

/* All but the last n_kept. */
static int hand_over(
	struct reading *reading, size_t n_kept, dirty_take take, void *arg, struct fault *fault)
{
	if (reading->n <= n_kept)
		return 0;
	size_t n = reading->n - n_kept;
	int r = take(arg, reading->extents, n, fault);
	if (r < 0)
		return r;
	memmove(reading->extents, reading->extents + n, n_kept * sizeof(*reading->extents));
	reading->n = n_kept;
	return 0;
}

static int reading_run(struct reading *reading, dirty_take take, void *arg, struct fault *fault)
{
	int r = reading_connect(reading, fault);

	while (r == 0 && reading->at < reading->source->size_bytes) {
		r = ask(reading, fault);
		if (r == 0)
			r = hand_over(reading, 1, take, arg, fault);
	}
	return r == 0 ? hand_over(reading, 0, take, arg, fault) : r;
}

int dirty_nbd_read(
	const struct dirty_source *source, dirty_take take, void *arg, struct fault *fault)
{
	struct reading reading = {
		.source = source,
		.context = xasprintf("qemu:dirty-bitmap:%s", source->bitmap),
	};
	int r = reading_run(&reading, take, arg, fault);

	reading_clear(&reading);
	return r;
}
