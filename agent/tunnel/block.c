/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/tunnel/block.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

enum { KIND_PLAIN, KIND_ZSTD };

#define LEVEL 1
/* The link is waited for as long as it was found blocked so short a time ago. */
#define WAITING_USEC (100 * USEC_PER_MSEC)
/* Over which its speed is measured. */
#define WINDOW_USEC (20 * USEC_PER_MSEC)
/* Packing pays when it is so many times as fast as the link. Where the other host, or this one's
 * processors, are what is waited for, the link seems fast. */
#define MARGIN 3
/* Until it was measured, bytes a second. */
#define FIRST_SPEED (300e6)
/* A packed block has to be shorter than 15/16. After one that is not, the next ones are not tried,
 * up to MAX_SKIP of them. */
#define WORTH(length) ((length) - (length) / 16)
#define MAX_SKIP      64
/* Too short to be worth a frame. */
#define LEAST_BYTES 256

static void put_head(char *head, int kind, size_t length)
{
	head[0] = (char)kind;
	head[1] = (char)(length >> 16);
	head[2] = (char)(length >> 8);
	head[3] = (char)length;
}

/* --- Sender -------------------------------------------------------------------------------------
 */

struct packer {
	ZSTD_CCtx *context; /* NULL until it is needed */
	char *packed;
	uint64_t blocked_usec; /* when the link was last found so; 0: never */
	uint64_t window_usec;  /* when the window began; 0: none */
	uint64_t window_sent;
	uint64_t now_usec;
	double link_speed; /* bytes a second; 0: unknown */
	double pack_speed;
	unsigned skip, skips_left;
};

struct packer *packer_new(void)
{
	struct packer *packer = xcalloc(1, sizeof(*packer));

	packer->pack_speed = FIRST_SPEED;
	return packer;
}

struct packer *packer_free(struct packer *packer)
{
	if (!packer)
		return NULL;
	ZSTD_freeCCtx(packer->context);
	free(packer->packed);
	free(packer);
	return NULL;
}

static bool is_waited_for(const struct packer *packer)
{
	return packer->blocked_usec && packer->now_usec - packer->blocked_usec < WAITING_USEC;
}

void packer_watch(struct packer *packer, uint64_t now_usec, uint64_t n_sent, bool is_blocked)
{
	packer->now_usec = now_usec;
	if (is_blocked)
		packer->blocked_usec = now_usec;
	if (!is_waited_for(packer)) {
		packer->window_usec = 0;
		packer->link_speed = 0;
		return;
	}
	uint64_t elapsed = now_usec - packer->window_usec;
	if (packer->window_usec && elapsed < WINDOW_USEC)
		return;
	if (packer->window_usec)
		packer->link_speed = (double)(n_sent - packer->window_sent) /
				     ((double)elapsed / (double)USEC_PER_SEC);
	packer->window_usec = now_usec;
	packer->window_sent = n_sent;
}

static bool is_worth_trying(struct packer *packer, size_t length)
{
	if (length < LEAST_BYTES || packer->link_speed <= 0 || !is_waited_for(packer) ||
		packer->link_speed * MARGIN > packer->pack_speed)
		return false;
	if (packer->skips_left == 0)
		return true;
	packer->skips_left--;
	return false;
}

/* The frame's length, or 0: it is not worth it. */
static size_t pack(struct packer *packer, const char *data, size_t length)
{
	if (!packer->context) {
		packer->context = ZSTD_createCCtx();
		packer->packed = xcalloc(1, BLOCK_HEAD_BYTES + BLOCK_BYTES);
	}
	if (!packer->context)
		return 0;
	uint64_t start = clock_now_usec();
	/* More room is not given: what does not become shorter is an error, found early. */
	size_t n = ZSTD_compressCCtx(packer->context, packer->packed + BLOCK_HEAD_BYTES,
		WORTH(length), data, length, LEVEL);
	uint64_t usec = MAX(clock_now_usec() - start, 1);
	double speed = (double)length / ((double)usec / (double)USEC_PER_SEC);
	packer->pack_speed += (speed - packer->pack_speed) / 8;
	if (ZSTD_isError(n)) {
		packer->skip = packer->skip ? MIN(packer->skip * 2, MAX_SKIP) : 1;
		packer->skips_left = packer->skip;
		return 0;
	}
	packer->skip = 0;
	return n;
}

size_t packer_make(struct packer *packer, char *data, size_t length, const char **ret_block)
{
	size_t n = is_worth_trying(packer, length) ? pack(packer, data, length) : 0;

	if (n) {
		put_head(packer->packed, KIND_ZSTD, n);
		*ret_block = packer->packed;
		return BLOCK_HEAD_BYTES + n;
	}
	put_head(data - BLOCK_HEAD_BYTES, KIND_PLAIN, length);
	*ret_block = data - BLOCK_HEAD_BYTES;
	return BLOCK_HEAD_BYTES + length;
}

/* --- Receiver -----------------------------------------------------------------------------------
 */

struct unpacker {
	unpacker_source source;
	void *arg;
	unsigned char head[BLOCK_HEAD_BYTES];
	size_t n_head;
	int kind;
	size_t left; /* of the block under way */
	ZSTD_DCtx *context;
	char *packed; /* of a frame, what came so far */
	size_t n_packed;
	char *data; /* of a frame, what it gave */
	size_t start, end;
	bool has_ended;
	ssize_t how; /* 0 or negative */
};

struct unpacker *unpacker_new(unpacker_source source, void *arg)
{
	struct unpacker *unpacker = xcalloc(1, sizeof(*unpacker));

	unpacker->source = source;
	unpacker->arg = arg;
	return unpacker;
}

struct unpacker *unpacker_free(struct unpacker *unpacker)
{
	if (!unpacker)
		return NULL;
	ZSTD_freeDCtx(unpacker->context);
	free(unpacker->packed);
	free(unpacker->data);
	free(unpacker);
	return NULL;
}

/* 1: the head of the next block is there; 0: the end; or negative. */
static ssize_t read_head(struct unpacker *unpacker)
{
	while (unpacker->n_head < BLOCK_HEAD_BYTES) {
		ssize_t n = unpacker->source(unpacker->arg, unpacker->head + unpacker->n_head,
			BLOCK_HEAD_BYTES - unpacker->n_head);
		if (n == 0 && unpacker->n_head)
			return -EBADMSG;
		if (n <= 0)
			return n;
		unpacker->n_head += (size_t)n;
	}
	unpacker->n_head = 0;
	unpacker->kind = unpacker->head[0];
	unpacker->left = (size_t)unpacker->head[1] << 16 | (size_t)unpacker->head[2] << 8 |
			 unpacker->head[3];
	if (unpacker->left == 0 || unpacker->left > BLOCK_MAX_BYTES || unpacker->kind > KIND_ZSTD)
		return -EBADMSG;
	return 1;
}

/* Within a block: the source's end is none. */
static ssize_t read_block(struct unpacker *unpacker, void *data, size_t length)
{
	ssize_t n = unpacker->source(unpacker->arg, data, MIN(length, unpacker->left));

	if (n == 0)
		return -EBADMSG;
	if (n > 0)
		unpacker->left -= (size_t)n;
	return n;
}

static int unpack(struct unpacker *unpacker)
{
	size_t n = ZSTD_decompressDCtx(unpacker->context, unpacker->data, BLOCK_BYTES,
		unpacker->packed, unpacker->n_packed);

	unpacker->n_packed = 0;
	if (ZSTD_isError(n) || n == 0)
		return -EBADMSG;
	unpacker->start = 0;
	unpacker->end = n;
	return 0;
}

/* Until a frame is complete. */
static int read_frame(struct unpacker *unpacker)
{
	if (!unpacker->context) {
		unpacker->context = ZSTD_createDCtx();
		unpacker->packed = xcalloc(1, BLOCK_MAX_BYTES);
		unpacker->data = xcalloc(1, BLOCK_BYTES);
	}
	if (!unpacker->context)
		return -ENOMEM;
	while (unpacker->left) {
		ssize_t n =
			read_block(unpacker, unpacker->packed + unpacker->n_packed, unpacker->left);
		if (n < 0)
			return (int)n;
		unpacker->n_packed += (size_t)n;
	}
	return unpack(unpacker);
}

static ssize_t read_some(struct unpacker *unpacker, char *data, size_t length)
{
	if (unpacker->start == unpacker->end && unpacker->left == 0) {
		ssize_t r = read_head(unpacker);
		if (r <= 0)
			return r;
	}
	if (unpacker->left && unpacker->kind == KIND_PLAIN)
		return read_block(unpacker, data, length);
	if (unpacker->left) {
		int r = read_frame(unpacker);
		if (r < 0)
			return r;
	}
	size_t n = MIN(length, unpacker->end - unpacker->start);
	memcpy(data, unpacker->data + unpacker->start, n);
	unpacker->start += n;
	return (ssize_t)n;
}

ssize_t unpacker_read(struct unpacker *unpacker, void *data, size_t length)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < length && !unpacker->has_ended) {
		n = read_some(unpacker, (char *)data + done, length - done);
		if (n == -EAGAIN)
			break;
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		unpacker->has_ended = true;
		unpacker->how = n;
	}
	/* What came before the end is handed over first. */
	if (done)
		return (ssize_t)done;
	return unpacker->has_ended ? unpacker->how : n;
}
