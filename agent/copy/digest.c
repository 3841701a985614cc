/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/digest.h"

#include "agent/copy/endpoint.h"
#include "agent/copy/zero.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>
#if defined(__x86_64__)
/* The library's own choice among SSE2, AVX2 and AVX-512 at run time. */
#include <xxh_x86dispatch.h>
#endif

#define ZEROS_BYTES  ((size_t)64 << 10)
#define PIECE_BYTES  ((size_t)512 << 10)
#define SECTOR_BYTES 512

struct digest_stream {
	XXH3_state_t *state;
	uint64_t zeros; /* leading zeros that were not hashed yet */
	bool any;       /* something other than zero was seen: the state is in use */
};

static const unsigned char zeros[ZEROS_BYTES];

static void canonical(XXH128_hash_t hash, unsigned char ret_digest[DIGEST_BYTES])
{
	XXH128_canonical_t bytes;

	XXH128_canonicalFromHash(&bytes, hash);
	memcpy(ret_digest, bytes.digest, DIGEST_BYTES);
}

uint64_t digest_n_spans(uint64_t size_bytes)
{
	return size_bytes / DIGEST_SPAN + (size_bytes % DIGEST_SPAN != 0);
}

void digest_chunk(const void *data, size_t length, unsigned char ret_digest[DIGEST_BYTES])
{
	if (zero_is_all(data, length))
		memset(ret_digest, 0, DIGEST_BYTES);
	else
		canonical(XXH3_128bits(data, length), ret_digest);
}

struct digest_stream *digest_stream_new(void)
{
	struct digest_stream *stream = xcalloc(1, sizeof(*stream));

	stream->state = XXH3_createState();
	if (!stream->state)
		abort(); /* 600 bytes: see docs/adr/0002-crash-only-allocation.md */
	return stream;
}

struct digest_stream *digest_stream_free(struct digest_stream *stream)
{
	if (!stream)
		return NULL;
	XXH3_freeState(stream->state);
	free(stream);
	return NULL;
}

static void hash_zeros(struct digest_stream *stream, uint64_t length)
{
	while (length) {
		size_t n = (size_t)MIN(length, ZEROS_BYTES);
		XXH3_128bits_update(stream->state, zeros, n);
		length -= n;
	}
}

void digest_stream_add_zeros(struct digest_stream *stream, uint64_t length)
{
	if (stream->any)
		hash_zeros(stream, length);
	else
		stream->zeros += length;
}

void digest_stream_add(struct digest_stream *stream, const void *data, size_t length)
{
	if (!stream->any && zero_is_all(data, length)) {
		stream->zeros += length;
		return;
	}
	if (!stream->any) {
		stream->any = true;
		XXH3_128bits_reset(stream->state);
		hash_zeros(stream, stream->zeros);
	}
	XXH3_128bits_update(stream->state, data, length);
}

void digest_stream_finish(struct digest_stream *stream, unsigned char ret_digest[DIGEST_BYTES])
{
	if (stream->any)
		canonical(XXH3_128bits_digest(stream->state), ret_digest);
	else
		memset(ret_digest, 0, DIGEST_BYTES);
	stream->zeros = 0;
	stream->any = false;
}

/* Reads [at, end) of the file into the stream, skipping its holes. */
static int digest_range(struct endpoint *file, struct digest_stream *stream, void *piece,
	uint64_t at, uint64_t end, struct fault *fault)
{
	while (at < end) {
		struct extent data;
		int r = endpoint_next_data(file, at, &data, fault);
		if (r < 0)
			return r;
		uint64_t start = data.length ? MIN(data.offset, end) : end;
		digest_stream_add_zeros(stream, start - at);
		at = start;
		uint64_t stop = MIN(data.offset + data.length, end);
		while (at < stop) {
			struct extent next = {at, MIN(stop - at, PIECE_BYTES)};
			r = endpoint_read(file, next, piece, NULL, fault);
			if (r < 0)
				return r;
			digest_stream_add(stream, piece, next.length);
			at += next.length;
		}
	}
	return 0;
}

int digest_file_span(const char *path, uint64_t size_bytes, uint64_t span, struct cancel *cancel,
	unsigned char ret_digests[DIGEST_SPAN_BYTES], struct fault *fault)
{
	struct endpoint_spec spec = {.kind = ENDPOINT_FILE, .path = path, .size_bytes = size_bytes};
	struct endpoint *file CLEANUP_ENDPOINT = NULL;
	struct digest_stream *stream CLEANUP_DIGEST_STREAM = digest_stream_new();
	unsigned char digests[DIGEST_SPAN_BYTES] = {0};
	void *piece CLEANUP_FREE = malloc(PIECE_BYTES);

	if (!piece)
		return fault_errno(fault, -ENOMEM, "digest of %s", path);
	if (span >= digest_n_spans(size_bytes))
		return fault_text(fault, -EINVAL, "digest of %s: it has no span %llu", path,
			(unsigned long long)span);
	int r = endpoint_open(&spec, cancel, &file, fault);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < DIGEST_SPAN_CHUNKS; i++) {
		uint64_t start = span * DIGEST_SPAN + i * DIGEST_CHUNK;
		if (start >= size_bytes)
			break;
		if (cancel_is_requested(cancel))
			return fault_text(fault, -ECANCELED, "digest of %s: cancelled: %s", path,
				cancel_reason(cancel));
		uint64_t end = MIN(start + DIGEST_CHUNK, size_bytes);
		r = digest_range(file, stream, piece, start, end, fault);
		if (r < 0)
			return r;
		digest_stream_finish(stream, digests + i * DIGEST_BYTES);
	}
	memcpy(ret_digests, digests, sizeof(digests));
	return 0;
}

static int check_extent(
	const char *path, uint64_t size_bytes, struct extent extent, struct fault *fault)
{
	if (extent.length && extent.length <= ENDPOINT_MAX_BYTES &&
		extent.offset % SECTOR_BYTES == 0 && extent.length % SECTOR_BYTES == 0 &&
		extent.offset <= size_bytes && extent.length <= size_bytes - extent.offset)
		return 0;
	return fault_text(fault, -EINVAL,
		"digest of %s: %llu bytes at %llu: whole sectors of %d, one to %zu bytes, within "
		"the disk of %llu",
		path, (unsigned long long)extent.length, (unsigned long long)extent.offset,
		SECTOR_BYTES, ENDPOINT_MAX_BYTES, (unsigned long long)size_bytes);
}

static int digest_extent(struct endpoint *file, struct extent extent, unsigned char *data,
	unsigned char *ret_digest, struct fault *fault)
{
	uint64_t start;
	int r = endpoint_first_data(file, extent, &start, fault);

	if (r < 0)
		return r;
	size_t hole = (size_t)(start - extent.offset);
	struct extent rest = {start, extent.length - hole};
	memset(data, 0, hole);
	if (rest.length)
		r = endpoint_read(file, rest, data + hole, NULL, fault);
	if (r == 0)
		digest_chunk(data, (size_t)extent.length, ret_digest);
	return r;
}

int digest_file_extents(const char *path, uint64_t size_bytes, const struct extent *extents,
	size_t n, struct cancel *cancel, unsigned char *ret_digests, struct fault *fault)
{
	struct endpoint_spec spec = {.kind = ENDPOINT_FILE, .path = path, .size_bytes = size_bytes};
	struct endpoint *file CLEANUP_ENDPOINT = NULL;
	void *data CLEANUP_FREE = malloc(ENDPOINT_MAX_BYTES);

	if (!data)
		return fault_errno(fault, -ENOMEM, "digest of %s", path);
	int r = endpoint_open(&spec, cancel, &file, fault);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (cancel_is_requested(cancel))
			return fault_text(fault, -ECANCELED, "digest of %s: cancelled: %s", path,
				cancel_reason(cancel));
		r = check_extent(path, size_bytes, extents[i], fault);
		if (r == 0)
			r = digest_extent(
				file, extents[i], data, ret_digests + i * DIGEST_BYTES, fault);
	}
	return r;
}
