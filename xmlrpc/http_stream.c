/* SPDX-License-Identifier: Apache-2.0 */
/* One ring of bytes between two threads. What comes from the client and what goes to it use the
 * same one: there is no answer before the body has ended or is dropped.
 *
 *	DECIDING: the headers are there, the connection is suspended until the thread asks for the
 *	          body or answers
 *	BODY:     bytes go to the ring, or, once there is an answer, nowhere
 *	ANSWER:   the answer is the library's, which asks for its bytes */
#include "xmlrpc/http_stream_server.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Of a body that nobody wants so much is read, so that the client sees the answer. */
#define DROP_MAX_BYTES ((uint64_t)8 << 20)
/* What the library asks for at once. */
#define BLOCK_BYTES ((size_t)64 << 10)

enum phase { DECIDING, BODY, ANSWER };

struct http_stream {
	const struct http_stream_route *route;
	char *method;
	char *peer_address;
	struct value *queries;
	struct value *cookies;
	struct value *headers;
	char *user;
	char *password;
	uint64_t length;
	void (*closed)(void *arg);
	void *closed_arg;
	int bell;          /* rung for the thread */
	atomic_int n_refs; /* thread, connection, response */

	pthread_mutex_t lock;              /* protects what follows */
	struct MHD_Connection *connection; /* NULL once gone */
	enum phase phase;
	bool is_suspended;
	bool is_wanted; /* the thread has asked for the body */
	bool is_answered;
	bool is_closed; /* by the thread */
	bool has_ended; /* the body */
	uint64_t n_dropped;
	unsigned status;
	struct MHD_Response *response; /* until it is queued */
	uint64_t n_due;                /* of the answer, not written yet */
	char *ring;
	size_t first;
	size_t n_filled;
};

/* --- The ring; callers hold the lock ------------------------------------------------------------
 */

static void put(struct http_stream *stream, const char *data, size_t length)
{
	size_t at = (stream->first + stream->n_filled) % HTTP_STREAM_BUFFER_BYTES;
	size_t n = MIN(length, HTTP_STREAM_BUFFER_BYTES - at);

	memcpy(stream->ring + at, data, n);
	memcpy(stream->ring, data + n, length - n);
	stream->n_filled += length;
}

static size_t take(struct http_stream *stream, char *data, size_t max)
{
	size_t length = MIN(max, stream->n_filled);
	size_t n = MIN(length, HTTP_STREAM_BUFFER_BYTES - stream->first);

	memcpy(data, stream->ring + stream->first, n);
	memcpy(data + n, stream->ring, length - n);
	stream->first = (stream->first + length) % HTTP_STREAM_BUFFER_BYTES;
	stream->n_filled -= length;
	return length;
}

static void ring_bell(struct http_stream *stream)
{
	eventfd_write(stream->bell, 1);
}

static void suspend(struct http_stream *stream)
{
	stream->is_suspended = true;
	MHD_suspend_connection(stream->connection);
}

static void resume(struct http_stream *stream)
{
	if (!stream->is_suspended)
		return;
	stream->is_suspended = false;
	MHD_resume_connection(stream->connection);
}

static void unref(struct http_stream *stream)
{
	if (atomic_fetch_sub(&stream->n_refs, 1) > 1)
		return;
	if (stream->password)
		explicit_bzero(stream->password, strlen(stream->password));
	value_free(stream->queries);
	value_free(stream->cookies);
	value_free(stream->headers);
	close(stream->bell);
	pthread_mutex_destroy(&stream->lock);
	free(stream->password);
	free(stream->user);
	free(stream->method);
	free(stream->peer_address);
	free(stream->ring);
	free(stream);
}

/* --- The request -------------------------------------------------------------------------------
 */

const struct http_stream_route *http_streams_find(
	const struct http_streams *streams, const char *path)
{
	for (size_t i = 0; streams && i < streams->n_routes; i++)
		if (strcmp(streams->routes[i].path, path) == 0)
			return &streams->routes[i];
	return NULL;
}

bool http_stream_route_allows(const struct http_stream_route *route, const char *method)
{
	size_t length = strlen(method);

	for (const char *at = route->methods; (at = strstr(at, method)); at += length)
		if ((at == route->methods || at[-1] == ' ') &&
			(at[length] == '\0' || at[length] == ','))
			return true;
	return false;
}

static enum MHD_Result collect(
	void *arg, enum MHD_ValueKind kind, const char *name, const char *text)
{
	struct value *values = arg;
	char *key CLEANUP_FREE = xstrdup(name);

	if (!text)
		text = "";
	for (char *c = key; kind == MHD_HEADER_KIND && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	if (utf8_is_valid(key, strlen(key)) && utf8_is_valid(text, strlen(text)))
		value_set_string(values, key, text);
	return MHD_YES;
}

static struct value *collect_all(struct MHD_Connection *connection, enum MHD_ValueKind kind)
{
	struct value *values = value_new_struct();

	MHD_get_connection_values(connection, kind, collect, values);
	return values;
}

static void read_credentials(struct http_stream *stream, struct MHD_Connection *connection)
{
	char *password = NULL;
	char *user = MHD_basic_auth_get_username_password(connection, &password);

	if (user && password && utf8_is_valid(user, strlen(user)) &&
		utf8_is_valid(password, strlen(password))) {
		stream->user = xstrdup(user);
		stream->password = xstrdup(password);
	}
	if (password)
		explicit_bzero(password, strlen(password));
	MHD_free(password);
	MHD_free(user);
}

static void read_length(struct http_stream *stream)
{
	const char *text = value_find_string(stream->headers, "content-length", "0");

	if (value_find(stream->headers, "transfer-encoding") ||
		parse_uint64(text, &stream->length) < 0)
		stream->length = HTTP_STREAM_LENGTH_UNKNOWN;
}

struct http_stream *http_stream_new(const struct http_stream_params *params)
{
	struct http_stream *stream = xcalloc(1, sizeof(*stream));

	pthread_mutex_init(&stream->lock, NULL);
	stream->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_init(&stream->n_refs, 2);
	stream->connection = params->connection;
	stream->route = params->route;
	stream->method = xstrdup(params->method);
	stream->peer_address = xstrdup(params->peer_address);
	stream->closed = params->closed;
	stream->closed_arg = params->arg;
	stream->queries = collect_all(params->connection, MHD_GET_ARGUMENT_KIND);
	stream->cookies = collect_all(params->connection, MHD_COOKIE_KIND);
	stream->headers = collect_all(params->connection, MHD_HEADER_KIND);
	read_credentials(stream, params->connection);
	read_length(stream);
	stream->ring = xcalloc(1, HTTP_STREAM_BUFFER_BYTES);
	return stream;
}

const struct http_stream_route *http_stream_route(const struct http_stream *stream)
{
	return stream->route;
}

const char *http_stream_method(const struct http_stream *stream)
{
	return stream->method;
}

const char *http_stream_peer_address(const struct http_stream *stream)
{
	return stream->peer_address;
}

const char *http_stream_query(const struct http_stream *stream, const char *name)
{
	return value_find_string(stream->queries, name, NULL);
}

const char *http_stream_cookie(const struct http_stream *stream, const char *name)
{
	return value_find_string(stream->cookies, name, NULL);
}

const char *http_stream_header(const struct http_stream *stream, const char *name)
{
	return value_find_string(stream->headers, name, NULL);
}

const struct value *http_stream_queries(const struct http_stream *stream)
{
	return stream->queries;
}

const char *http_stream_user(const struct http_stream *stream)
{
	return stream->user;
}

const char *http_stream_password(const struct http_stream *stream)
{
	return stream->password;
}

uint64_t http_stream_length(const struct http_stream *stream)
{
	return stream->length;
}

/* --- The server's thread ------------------------------------------------------------------------
 */

/* What the library is told. */
enum advance { GO_ON, CUT, QUEUE };

/* Without the lock: the library has a lock of its own on the response, and asks for content under
 * that. The response is this thread's since the answer was offered. */
static bool queue_answer(struct http_stream *stream)
{
	struct MHD_Response *response = TAKE_PTR(stream->response);
	enum MHD_Result result = MHD_queue_response(stream->connection, stream->status, response);

	MHD_destroy_response(response);
	return result == MHD_YES;
}

/* A refusal comes before the body when the client waits for it, or when reading the body away would
 * take long. */
static bool answers_early(const struct http_stream *stream)
{
	return stream->length == 0 || stream->length > DROP_MAX_BYTES ||
	       value_find(stream->headers, "expect");
}

static enum advance begin_answer(struct http_stream *stream)
{
	stream->phase = ANSWER;
	return QUEUE;
}

static enum advance decide(struct http_stream *stream)
{
	if (stream->is_closed && !stream->is_answered)
		return CUT;
	if (!stream->is_wanted && !stream->is_answered) {
		suspend(stream);
		return GO_ON;
	}
	if (stream->is_answered && answers_early(stream))
		return begin_answer(stream);
	stream->phase = BODY;
	return GO_ON;
}

static enum advance drop(struct http_stream *stream, size_t *length)
{
	stream->n_dropped += *length;
	*length = 0;
	return stream->n_dropped <= DROP_MAX_BYTES ? GO_ON : CUT;
}

static enum advance take_body(struct http_stream *stream, const char *data, size_t *length)
{
	if (stream->is_answered)
		return drop(stream, length);
	if (stream->is_closed)
		return CUT;
	size_t n = MIN(*length, HTTP_STREAM_BUFFER_BYTES - stream->n_filled);
	put(stream, data, n);
	*length -= n;
	ring_bell(stream);
	if (*length)
		suspend(stream);
	return GO_ON;
}

static enum advance end_body(struct http_stream *stream)
{
	if (!stream->has_ended)
		ring_bell(stream);
	stream->has_ended = true;
	if (stream->is_answered)
		return begin_answer(stream);
	if (stream->is_closed)
		return CUT;
	suspend(stream);
	return GO_ON;
}

static enum advance advance(struct http_stream *stream, const char *data, size_t *length)
{
	SCOPE_LOCK(&stream->lock);
	if (stream->phase == ANSWER)
		return GO_ON;
	if (stream->phase == DECIDING)
		return decide(stream);
	return *length ? take_body(stream, data, length) : end_body(stream);
}

bool http_stream_advance(struct http_stream *stream, const char *data, size_t *length)
{
	enum advance what = advance(stream, data, length);

	return what == QUEUE ? queue_answer(stream) : what == GO_ON;
}

void http_stream_gone(struct http_stream *stream)
{
	pthread_mutex_lock(&stream->lock);
	struct MHD_Response *response = TAKE_PTR(stream->response);
	stream->connection = NULL;
	stream->is_suspended = false;
	ring_bell(stream);
	pthread_mutex_unlock(&stream->lock);
	if (response)
		MHD_destroy_response(response);
	unref(stream);
}

static ssize_t on_content(void *arg, uint64_t position, char *data, size_t max)
{
	struct http_stream *stream = arg;

	(void)position;
	SCOPE_LOCK(&stream->lock);
	if (stream->n_filled) {
		size_t n = take(stream, data, max);
		ring_bell(stream);
		return (ssize_t)n;
	}
	if (stream->is_closed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	suspend(stream);
	return 0;
}

static void on_response_freed(void *arg)
{
	unref(arg);
}

/* --- The caller's thread ------------------------------------------------------------------------
 */

/* Blocks until the bell rings. */
static int await(struct http_stream *stream, uint64_t deadline_usec, const struct cancel *cancel)
{
	struct pollfd fd = {.fd = stream->bell, .events = POLLIN};
	eventfd_t count;
	int r = cancel_poll(cancel, &fd, 1, deadline_usec);

	if (r > 0)
		eventfd_read(stream->bell, &count);
	return r > 0 ? 0 : r == 0 ? -ETIMEDOUT : r;
}

/* -EAGAIN: nothing is there yet. */
static ssize_t try_read(struct http_stream *stream, void *data, size_t max)
{
	SCOPE_LOCK(&stream->lock);
	if (!stream->is_wanted) {
		stream->is_wanted = true;
		resume(stream);
	}
	if (stream->n_filled) {
		size_t n = take(stream, data, max);
		if (!stream->has_ended)
			resume(stream);
		return (ssize_t)n;
	}
	if (stream->has_ended)
		return 0;
	return stream->connection ? -EAGAIN : -ECONNRESET;
}

ssize_t http_stream_read(struct http_stream *stream, void *data, size_t max, uint64_t deadline_usec,
	const struct cancel *cancel)
{
	ssize_t n;

	while ((n = try_read(stream, data, max)) == -EAGAIN) {
		int r = await(stream, deadline_usec, cancel);
		if (r < 0)
			return r;
	}
	return n;
}

static int try_write(struct http_stream *stream, const void *data, size_t length)
{
	SCOPE_LOCK(&stream->lock);
	if (!stream->connection)
		return -ECONNRESET;
	if (HTTP_STREAM_BUFFER_BYTES - stream->n_filled < length)
		return -EAGAIN;
	put(stream, data, length);
	stream->n_due -= MIN(stream->n_due, length);
	if (stream->phase == ANSWER)
		resume(stream);
	return 0;
}

int http_stream_write(struct http_stream *stream, const void *data, size_t length,
	uint64_t deadline_usec, const struct cancel *cancel)
{
	int r;

	while ((r = try_write(stream, data, length)) == -EAGAIN) {
		r = await(stream, deadline_usec, cancel);
		if (r < 0)
			return r;
	}
	return r;
}

static int try_flush(struct http_stream *stream)
{
	SCOPE_LOCK(&stream->lock);
	if (!stream->n_filled)
		return 0;
	return stream->connection ? -EAGAIN : -ECONNRESET;
}

int http_stream_flush(
	struct http_stream *stream, uint64_t deadline_usec, const struct cancel *cancel)
{
	int r;

	while ((r = try_flush(stream)) == -EAGAIN) {
		r = await(stream, deadline_usec, cancel);
		if (r < 0)
			return r;
	}
	return r;
}

static void add_headers(struct MHD_Response *response, const struct http_stream_answer *answer)
{
	const struct value *more = answer->headers;

	MHD_add_response_header(response, "Content-Type", answer->content_type);
	MHD_add_response_header(response, "Cache-Control", "no-cache, no-store");
	MHD_add_response_header(response, "Connection", "close");
	for (size_t i = 0; more && i < more->record.n_members; i++)
		MHD_add_response_header(response, more->record.members[i].name,
			value_string(more->record.members[i].value, ""));
}

/* false: nobody is there to take it. */
static bool offer(struct http_stream *stream, const struct http_stream_answer *answer,
	struct MHD_Response *response)
{
	SCOPE_LOCK(&stream->lock);
	stream->first = stream->n_filled = 0;
	stream->is_answered = true;
	stream->n_due = answer->length;
	if (!stream->connection)
		return false;
	stream->status = answer->status;
	stream->response = response;
	resume(stream);
	return true;
}

void http_stream_answer(struct http_stream *stream, const struct http_stream_answer *answer)
{
	struct MHD_Response *response = MHD_create_response_from_callback(
		answer->length, BLOCK_BYTES, on_content, stream, on_response_freed);

	if (!response)
		return;                       /* no memory: the connection is cut */
	atomic_fetch_add(&stream->n_refs, 1); /* the response's */
	add_headers(response, answer);
	if (!offer(stream, answer, response))
		MHD_destroy_response(response);
}

bool http_stream_is_answered(const struct http_stream *stream)
{
	return stream->is_answered; /* changed by this thread alone */
}

void http_stream_close(struct http_stream *stream)
{
	pthread_mutex_lock(&stream->lock);
	if (stream->connection && (!stream->is_answered || stream->n_due))
		log_debug("http_stream_cut", "path=%s", stream->route->path);
	stream->is_closed = true;
	resume(stream);
	pthread_mutex_unlock(&stream->lock);
	void (*closed)(void *arg) = stream->closed;
	void *arg = stream->closed_arg;
	unref(stream);
	closed(arg);
}
