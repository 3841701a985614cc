/* SPDX-License-Identifier: Apache-2.0 */
/* Requests whose body or answer is a file: it goes through one buffer of fixed size, from or to a
 * thread of the caller's, and is never in memory as a whole. A side that waits for the other costs
 * a suspended connection; the thread that moves all bytes of the server never waits.
 *
 * One thread of the caller's owns the stream from streams->begin on, and ends it by
 * http_stream_close. All calls but those that say so return at once. */
#ifndef FERRY_XMLRPC_HTTP_STREAM_H
#define FERRY_XMLRPC_HTTP_STREAM_H

#include "base/cancel.h"
#include "base/value.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is on its way between the client and the thread at most. */
#define HTTP_STREAM_BUFFER_BYTES ((size_t)256 << 10)
/* The client makes some progress within this, or is cut off; there is no limit for all of it. */
#define HTTP_STREAM_PROGRESS_SEC   30u
#define HTTP_STREAM_LENGTH_UNKNOWN UINT64_MAX

struct http_stream;

struct http_stream_route {
	const char *path;    /* "/export_raw_vdi" */
	const char *methods; /* "GET, HEAD", as in the header Allow; not POST: that is a call */
	const void *data;    /* the caller's */
};

struct http_streams {
	const struct http_stream_route *routes;
	size_t n_routes;
	/* Takes the stream over: 0, and a thread works on it. Negative: refused, the client gets
	 * 503. Must not block. */
	int (*begin)(void *arg, struct http_stream *stream);
	void *arg;
};

/* --- The request -------------------------------------------------------------------------------
 */

const struct http_stream_route *http_stream_route(const struct http_stream *stream);
const char *http_stream_method(const struct http_stream *stream);
const char *http_stream_peer_address(const struct http_stream *stream);
/* NULL when there is none, or it is not UTF-8. The name of a header in lower case. */
const char *http_stream_query(const struct http_stream *stream, const char *name);
const char *http_stream_cookie(const struct http_stream *stream, const char *name);
const char *http_stream_header(const struct http_stream *stream, const char *name);
/* All of the query, as a struct of strings. */
const struct value *http_stream_queries(const struct http_stream *stream);
/* Of HTTP Basic; NULL without. */
const char *http_stream_user(const struct http_stream *stream);
const char *http_stream_password(const struct http_stream *stream);
/* Of the body, as announced; HTTP_STREAM_LENGTH_UNKNOWN: it comes in chunks. */
uint64_t http_stream_length(const struct http_stream *stream);

/* --- Its body ----------------------------------------------------------------------------------
 */

/* The next bytes, at most max: how many; 0 after the last. The first call asks the client for the
 * body. Blocks. -ECONNRESET: the client is gone, or stalled, before the end; -ETIMEDOUT,
 * -ECANCELED. */
ssize_t http_stream_read(struct http_stream *stream, void *data, size_t max, uint64_t deadline_usec,
	const struct cancel *cancel);

/* --- The answer --------------------------------------------------------------------------------
 */

struct http_stream_answer {
	unsigned status;
	const char *content_type;
	const struct value *headers; /* struct of strings; NULL: no more */
	uint64_t length;             /* of what is written afterwards */
};

/* Once. What has not been read of the body is dropped; when that would be much, the connection is
 * cut. */
void http_stream_answer(struct http_stream *stream, const struct http_stream_answer *answer);
bool http_stream_is_answered(const struct http_stream *stream);
/* Blocks while the client does not read. 0; -ECONNRESET: it is gone; -ETIMEDOUT: nothing of this
 * was taken; -ECANCELED. length: at most HTTP_STREAM_BUFFER_BYTES, all or nothing. */
int http_stream_write(struct http_stream *stream, const void *data, size_t length,
	uint64_t deadline_usec, const struct cancel *cancel);

/* Blocks until the library has taken all that was written. As http_stream_write. */
int http_stream_flush(
	struct http_stream *stream, uint64_t deadline_usec, const struct cancel *cancel);

/* Without an answer, or before all of it was written, the connection is cut, so that the client
 * sees that something is missing. The stream is gone afterwards. */
void http_stream_close(struct http_stream *stream);

#endif
