/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 on a TCP socket. GnuTLS reads and writes through buffers of ours, so that a system call
 * moves many records, and none waits.
 *
 * One thread at a time. After the handshake a call never blocks unless its name says "full". */
#ifndef FERRY_AGENT_TUNNEL_STREAM_H
#define FERRY_AGENT_TUNNEL_STREAM_H

#include "agent/tunnel/socket.h"
#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Certificate and key of the accepting side; any number of streams, any threads. */
struct stream_identity;

int stream_identity_load(const char *certificate_file, const char *key_file,
	struct stream_identity **ret_identity, struct fault *fault);
/* After the last stream that was accepted with it. NULL is fine. */
struct stream_identity *stream_identity_free(struct stream_identity *identity);

struct stream;

/* Both take over fd, whatever comes of it, and block for the handshake. -ETIMEDOUT, -ECANCELED,
 * -ECONNRESET, -EPROTO (the peer does not speak this TLS). */
int stream_accept(int fd, const struct stream_identity *identity, const struct limit *limit,
	struct stream **ret_stream, struct fault *fault);
/* fingerprint: of the key that the peer must have, as tls_fingerprint() has it. -EKEYREJECTED: it
 * has another; nothing but the handshake was sent to it. */
int stream_connect(int fd, const char *fingerprint, const struct limit *limit,
	struct stream **ret_stream, struct fault *fault);
/* Without a word to the peer, which sees a connection that broke. NULL is fine. */
struct stream *stream_free(struct stream *stream);

int stream_fd(const struct stream *stream);

/* Bytes read (> 0); 0: the peer has ended its direction; -EAGAIN: wait for POLLIN; else the
 * connection is broken (-ECONNRESET, -ETIMEDOUT, -EPROTO ...). */
ssize_t stream_read(struct stream *stream, void *data, size_t length);
/* Bytes taken over (> 0), to be sent by stream_flush; -EAGAIN: flush first; else it is broken. */
ssize_t stream_write(struct stream *stream, const void *data, size_t length);
/* Ends our direction; the peer's stays open. -EAGAIN: flush first. */
int stream_end(struct stream *stream);
/* 0: all is sent; -EAGAIN: wait for POLLOUT; else it is broken. */
int stream_flush(struct stream *stream);
bool stream_has_unsent(const struct stream *stream);
/* Bytes that the kernel has taken so far. */
uint64_t stream_sent(const struct stream *stream);

/* The same for a few bytes, waiting. -ENODATA: the peer ended before. */
int stream_read_full(struct stream *stream, void *data, size_t length, const struct limit *limit);
int stream_write_full(
	struct stream *stream, const void *data, size_t length, const struct limit *limit);

DEFINE_CLEANUP(struct stream_identity *, stream_identity_free)
#define CLEANUP_STREAM_IDENTITY CLEANUP(cleanup_stream_identity_free)
DEFINE_CLEANUP(struct stream *, stream_free)
#define CLEANUP_STREAM CLEANUP(cleanup_stream_free)

#endif
