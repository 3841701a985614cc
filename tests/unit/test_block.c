/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/tunnel/block.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

#define N_BLOCKS 64

/* --- A sender ----------------------------------------------------------------------------------
 */

/* What a link of that speed would have taken by then; it is waited for all the time. */
struct slow_link {
	double bytes_per_sec;
	bool is_blocked;
	uint64_t now_usec;
};

static void pass_time(struct slow_link *link, struct packer *packer, uint64_t usec)
{
	link->now_usec += usec;
	double sent = link->bytes_per_sec * (double)link->now_usec / (double)USEC_PER_SEC;
	packer_watch(packer, link->now_usec, (uint64_t)sent, link->is_blocked);
}

/* Text-like: it becomes much shorter. */
static void fill_text(char *data, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		data[i] = "the guest's memory "[(i * (seed % 7 + 1) + seed) % 19];
}

static void fill_noise(char *data, size_t length, unsigned seed)
{
	uint64_t state = seed + 1;

	for (size_t i = 0; i < length; i++) {
		state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
		data[i] = (char)(state >> 56);
	}
}

/* Sends that and notes what was sent; how long the blocks are. */
static size_t send_blocks(struct slow_link *link, void (*fill)(char *, size_t, unsigned),
	struct buf *plain, struct buf *wire)
{
	struct packer *packer CLEANUP_PACKER = packer_new();
	char *room CLEANUP_FREE = xcalloc(1, BLOCK_HEAD_BYTES + BLOCK_BYTES);
	char *data = room + BLOCK_HEAD_BYTES;
	size_t before = wire->length;
	const char *block;

	link->now_usec += USEC_PER_SEC;
	for (unsigned i = 0; i < N_BLOCKS; i++) {
		size_t length = i % 5 ? BLOCK_BYTES : 1 + i * 13;
		fill(data, length, i);
		buf_append(plain, data, length);
		pass_time(link, packer, 30 * USEC_PER_MSEC);
		size_t n = packer_make(packer, data, length, &block);
		assert_true(n <= BLOCK_HEAD_BYTES + length);
		buf_append(wire, block, n);
	}
	return wire->length - before;
}

/* --- A receiver --------------------------------------------------------------------------------
 */

/* Gives pieces of odd lengths, and nothing at times. */
struct pieces {
	const char *data;
	size_t length, at;
	unsigned n_calls;
};

static ssize_t next_piece(void *arg, void *data, size_t length)
{
	struct pieces *pieces = arg;
	size_t most = 1 + pieces->n_calls * 7919 % 50000;

	if (pieces->n_calls++ % 3 == 2)
		return -EAGAIN;
	size_t n = MIN(MIN(length, most), pieces->length - pieces->at);
	memcpy(data, pieces->data + pieces->at, n);
	pieces->at += n;
	return (ssize_t)n;
}

/* What comes out of it until the end, which is returned. */
static ssize_t receive(const char *wire, size_t length, struct buf *out)
{
	struct pieces pieces = {.data = wire, .length = length};
	struct unpacker *unpacker CLEANUP_UNPACKER = unpacker_new(next_piece, &pieces);
	char *data CLEANUP_FREE = xcalloc(1, BLOCK_BYTES);

	for (;;) {
		ssize_t n =
			unpacker_read(unpacker, data, 1 + pieces.n_calls * 104729 % BLOCK_BYTES);
		if (n == -EAGAIN)
			continue;
		if (n <= 0) {
			/* It stays so. */
			assert_int_equal(unpacker_read(unpacker, data, 1), n);
			return n;
		}
		buf_append(out, data, (size_t)n);
	}
}

static void check_arrives(const struct buf *plain, const struct buf *wire)
{
	struct buf out CLEANUP_BUF = BUF_INIT;

	assert_int_equal(receive(wire->data, wire->length, &out), 0);
	assert_int_equal(out.length, plain->length);
	assert_memory_equal(out.data, plain->data, plain->length);
}

/* --- Tests -------------------------------------------------------------------------------------
 */

static void what_a_slow_link_carries_becomes_less(void **state)
{
	struct slow_link link = {.bytes_per_sec = 20e6, .is_blocked = true};
	struct buf plain CLEANUP_BUF = BUF_INIT, wire CLEANUP_BUF = BUF_INIT;

	(void)state;
	size_t n = send_blocks(&link, fill_text, &plain, &wire);
	assert_true(n < plain.length / 10);
	check_arrives(&plain, &wire);
}

static void what_cannot_be_packed_goes_as_it_is(void **state)
{
	struct slow_link link = {.bytes_per_sec = 20e6, .is_blocked = true};
	struct buf plain CLEANUP_BUF = BUF_INIT, wire CLEANUP_BUF = BUF_INIT;

	(void)state;
	size_t n = send_blocks(&link, fill_noise, &plain, &wire);
	assert_int_equal(n, plain.length + N_BLOCKS * BLOCK_HEAD_BYTES);
	/* And packing is found again behind it, in a stream of both. */
	send_blocks(&link, fill_text, &plain, &wire);
	check_arrives(&plain, &wire);
}

static void a_fast_link_costs_nothing(void **state)
{
	struct slow_link link = {.bytes_per_sec = 2e9, .is_blocked = true};
	struct buf plain CLEANUP_BUF = BUF_INIT, wire CLEANUP_BUF = BUF_INIT;

	(void)state;
	size_t n = send_blocks(&link, fill_text, &plain, &wire);
	assert_int_equal(n, plain.length + N_BLOCKS * BLOCK_HEAD_BYTES);
	check_arrives(&plain, &wire);
}

/* A source that is slower than the link: the link's speed is not known, and nothing waits for it.
 */
static void what_need_not_wait_is_not_packed(void **state)
{
	struct slow_link link = {.bytes_per_sec = 20e6};
	struct buf plain CLEANUP_BUF = BUF_INIT, wire CLEANUP_BUF = BUF_INIT;

	(void)state;
	size_t n = send_blocks(&link, fill_text, &plain, &wire);
	assert_int_equal(n, plain.length + N_BLOCKS * BLOCK_HEAD_BYTES);
}

/* Bytes that no packer makes. */
static void check_refused(const char *wire, size_t length)
{
	struct buf out CLEANUP_BUF = BUF_INIT;

	assert_int_equal(receive(wire, length, &out), -EBADMSG);
}

static void what_is_no_block_is_refused(void **state)
{
	static char long_block[BLOCK_HEAD_BYTES + BLOCK_MAX_BYTES + 1] = {0, 2, 0, 1};

	(void)state;
	check_refused("\0\0\0\0", 4);     /* of no bytes */
	check_refused("\2\0\0\1x", 5);    /* of an unknown kind */
	check_refused("\0\0", 2);         /* the end in the head */
	check_refused("\0\0\0\5four", 8); /* and in the bytes */
	check_refused("\1\0\0\4abcd", 8); /* no frame */
	check_refused("\1\0\0\4abc", 7);  /* nor a whole one */
	check_refused(long_block, sizeof(long_block));
}

static void refuse_frame_of(size_t length)
{
	char *data CLEANUP_FREE = xcalloc(1, length + 1);
	char wire[1024] = {1};
	size_t n = ZSTD_compress(
		wire + BLOCK_HEAD_BYTES, sizeof(wire) - BLOCK_HEAD_BYTES, data, length, 1);

	assert_false(ZSTD_isError(n));
	wire[2] = (char)(n >> 8);
	wire[3] = (char)n;
	check_refused(wire, BLOCK_HEAD_BYTES + n);
}

/* Few bytes that would become many, and none at all. */
static void a_frame_gives_no_more_than_a_block(void **state)
{
	struct buf out CLEANUP_BUF = BUF_INIT;

	(void)state;
	refuse_frame_of(BLOCK_BYTES + 1);
	refuse_frame_of(0);
	assert_int_equal(receive("", 0, &out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_slow_link_carries_becomes_less),
		cmocka_unit_test(what_cannot_be_packed_goes_as_it_is),
		cmocka_unit_test(a_fast_link_costs_nothing),
		cmocka_unit_test(what_need_not_wait_is_not_packed),
		cmocka_unit_test(what_is_no_block_is_refused),
		cmocka_unit_test(a_frame_gives_no_more_than_a_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
