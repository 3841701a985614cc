/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes from a peer that has opened a door: what blocks of them are whole, then the end or a
 * refusal. How the bytes come in pieces does not matter. */
#include "agent/tunnel/block.h"
#include "base/alloc.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
	const uint8_t *data;
	size_t left, piece;
	bool is_late; /* nothing was there at the last call */
};

static ssize_t next_piece(void *arg, void *data, size_t length)
{
	struct source *source = arg;
	size_t n = MIN(MIN(length, source->piece), source->left);

	source->is_late = !source->is_late;
	if (source->is_late)
		return -EAGAIN;
	memcpy(data, source->data, n);
	source->data += n;
	source->left -= n;
	return (ssize_t)n;
}

struct outcome {
	uint64_t sum;
	size_t n_bytes;
	ssize_t how;
};

static struct outcome read_all(const uint8_t *data, size_t size, size_t piece, size_t room)
{
	struct source source = {.data = data, .left = size, .piece = piece};
	struct unpacker *unpacker CLEANUP_UNPACKER = unpacker_new(next_piece, &source);
	unsigned char *out CLEANUP_FREE = xcalloc(1, room);
	struct outcome outcome = {0};
	ssize_t n;

	while ((n = unpacker_read(unpacker, out, room)) > 0 || n == -EAGAIN) {
		if (n > (ssize_t)room)
			abort();
		for (ssize_t i = 0; i < n; i++)
			outcome.sum = outcome.sum * 31 + out[i];
		outcome.n_bytes += n > 0 ? (size_t)n : 0;
	}
	outcome.how = n;
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole = read_all(data, size, SIZE_MAX, BLOCK_BYTES);
	struct outcome small = read_all(data, size, 1 + size / 7, 1000);

	if (whole.how != 0 && whole.how != -EBADMSG)
		abort();
	if (whole.how != small.how)
		abort();
	/* Before a refusal as many bytes come as were in the pieces before. */
	if (whole.how == 0 && (whole.sum != small.sum || whole.n_bytes != small.n_bytes))
		abort();
	return 0;
}
