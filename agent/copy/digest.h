/* SPDX-License-Identifier: Apache-2.0 */
/* Digests that both sides compute of what they hold: XXH3-128 per chunk of the disk, canonical
 * (big-endian) form; a chunk of only zeros (or holes) has 16 zero bytes. Integrity, not
 * authenticity: TLS gives that. */
#ifndef FERRY_AGENT_COPY_DIGEST_H
#define FERRY_AGENT_COPY_DIGEST_H

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "schema/types.h"

#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES       16
#define DIGEST_CHUNK       (UINT64_C(4) << 20)
#define DIGEST_SPAN_CHUNKS 256 /* 1 GiB of disk: one row in agent.db, one Peer.digest answer */
#define DIGEST_SPAN        (DIGEST_CHUNK * DIGEST_SPAN_CHUNKS)
#define DIGEST_SPAN_BYTES  (DIGEST_BYTES * DIGEST_SPAN_CHUNKS)

/* Number of spans of a disk. */
uint64_t digest_n_spans(uint64_t size_bytes);

/* Digests of one chunk in memory; the last chunk of a disk may be shorter. */
void digest_chunk(const void *data, size_t length, unsigned char ret_digest[DIGEST_BYTES]);

/* The digest of one chunk, fed in pieces as they pass by. Zeros and holes before the first other
 * byte cost nothing. Belongs to one thread. */
struct digest_stream;

struct digest_stream *digest_stream_new(void);
struct digest_stream *digest_stream_free(struct digest_stream *stream);
void digest_stream_add(struct digest_stream *stream, const void *data, size_t length);
/* The same as adding that many zero bytes. */
void digest_stream_add_zeros(struct digest_stream *stream, uint64_t length);
/* Gives the digest and starts anew. */
void digest_stream_finish(struct digest_stream *stream, unsigned char ret_digest[DIGEST_BYTES]);

/* Reads a span of the file at path (holes are not read) and fills DIGEST_SPAN_BYTES; chunks past
 * the end are zero. -EIO: the file is not size_bytes long, or cannot be read. Blocks; sees cancel.
 */
int digest_file_span(const char *path, uint64_t size_bytes, uint64_t span, struct cancel *cancel,
	unsigned char ret_digests[DIGEST_SPAN_BYTES], struct fault *fault);

/* The digests of extents of the file, DIGEST_BYTES each, in their order: as digest_chunk gives them
 * (16 zero bytes for an extent of zeros). Extents that begin with a hole are read from its end on.
 * -EINVAL: one is empty, not in whole sectors, longer than ENDPOINT_MAX_BYTES or beyond the end;
 * otherwise as digest_file_span. Blocks; sees cancel. */
int digest_file_extents(const char *path, uint64_t size_bytes, const struct extent *extents,
	size_t n, struct cancel *cancel, unsigned char *ret_digests, struct fault *fault);

DEFINE_CLEANUP(struct digest_stream *, digest_stream_free)
#define CLEANUP_DIGEST_STREAM CLEANUP(cleanup_digest_stream_free)

#endif
