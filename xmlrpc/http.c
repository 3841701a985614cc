/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/http.h"

#include "xmlrpc/http_stream_server.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* A sender must make progress within PROGRESS_SEC and be done within RECEIVE_SEC (contract 1.1); a
 * reader of an answer gets more, for answers are larger; an idle connection is kept for IDLE_SEC.
 * While a request runs or waits for its answer, nothing is counted. */
#define PROGRESS_SEC 10u
#define RECEIVE_SEC  60
#define READ_SEC     60u
#define ANSWER_SEC   600
#define IDLE_SEC     300
/* How long a stopping server lets the last answers leave. */
#define FLUSH_SEC 5
/* The body of a refused request, if it is not much larger than allowed, is read and dropped, so
 * that the sender reads the refusal instead of a reset. */
#define DRAIN_MAX_BYTES ((uint64_t)8 << 20)
/* Headers and what else libmicrohttpd keeps of a connection. */
#define CONNECTION_MEMORY_BYTES ((size_t)24 << 10)

struct http {
	struct MHD_Daemon *daemon;
	MHD_socket quiesced_fd; /* the listening socket, once closed to clients; or
				   MHD_INVALID_SOCKET */
	struct http_params params;

	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t changed;
	unsigned n_pending; /* requests submitted and not yet answered */
	unsigned n_unsent;  /* requests submitted whose answer is not yet sent */
	bool closing;
};

struct request {
	struct job job;
	struct http *http;
	struct MHD_Connection *connection;
	enum wire wire;
	bool is_http_1_0;
	bool is_counted; /* in n_unsent */
	char *body;
	size_t length;
	size_t capacity; /* what Content-Length said */
	char peer_address[INET6_ADDRSTRLEN];
	struct http_stream *stream; /* NULL: it is a call; or its stream was refused */

	/* The answer; status 0 while there is none. */
	unsigned status;
	const char *content_type;
	const char *allow;
	struct buf answer;
};

/* --- Answers ------------------------------------------------------------------------------------
 */

static struct kept *kept_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* Both clocks of a connection: between two bytes, and of the whole step. */
static void set_clocks(struct http *http, struct MHD_Connection *connection, unsigned progress_sec,
	uint64_t total_usec)
{
	struct kept *kept = kept_of(connection);

	MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, progress_sec);
	if (kept)
		keeper_set_deadline(http->params.keeper, kept, clock_deadline(total_usec));
}

static void add_headers(struct MHD_Response *response, const struct request *request)
{
	MHD_add_response_header(response, "Content-Type", request->content_type);
	MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
	MHD_add_response_header(response, "Access-Control-Allow-Headers", "X-Requested-With");
	MHD_add_response_header(response, "Cache-Control", "no-cache, no-store");
	if (request->allow)
		MHD_add_response_header(response, "Allow", request->allow);
	/* After a refusal what follows on the connection may be the rest of its body. */
	if (request->status != 200 || request->is_http_1_0)
		MHD_add_response_header(response, "Connection", "close");
}

static enum MHD_Result send_answer(struct request *request)
{
	size_t length = request->answer.length;
	/* "" is never freed: the buffer is the response's only when there is one. */
	void *data = request->answer.data;
	struct MHD_Response *response = MHD_create_response_from_buffer(
		length, data ? data : "", data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);

	if (!response)
		return MHD_NO;
	request->answer = (struct buf)BUF_INIT;
	add_headers(response, request);
	MHD_set_response_options(response,
		request->is_http_1_0 ? MHD_RF_HTTP_1_0_SERVER : MHD_RF_SEND_KEEP_ALIVE_HEADER,
		MHD_RO_END);
	set_clocks(request->http, request->connection, READ_SEC, ANSWER_SEC * USEC_PER_SEC);
	enum MHD_Result result = MHD_queue_response(request->connection, request->status, response);
	MHD_destroy_response(response);
	return result;
}

static void set_text(struct request *request, unsigned status, const char *text)
{
	request->status = status;
	request->content_type = "text/plain";
	buf_append_string(&request->answer, text);
}

/* --- Running ------------------------------------------------------------------------------------
 */

static void count_answered(struct http *http)
{
	SCOPE_LOCK(&http->lock);
	if (--http->n_pending == 0)
		pthread_cond_broadcast(&http->changed);
}

static void count_sent(struct http *http)
{
	SCOPE_LOCK(&http->lock);
	if (--http->n_unsent == 0)
		pthread_cond_broadcast(&http->changed);
}

/* Of the dispatcher; from any thread, once. */
static void on_reply(void *arg, unsigned status, const char *content_type, struct buf *body)
{
	struct request *request = arg;
	struct http *http = request->http;

	request->status = status;
	request->content_type = content_type;
	request->answer = *body;
	*body = (struct buf)BUF_INIT;
	/* The request may be sent and freed from here on. */
	MHD_resume_connection(request->connection);
	count_answered(http);
}

static void run_request(struct job *job)
{
	struct request *request = (struct request *)job; /* its first member */

	dispatcher_handle(request->http->params.dispatcher, request->wire,
		request->body ? request->body : "", request->length, request->peer_address,
		on_reply, request);
}

static bool count_submitted(struct http *http)
{
	SCOPE_LOCK(&http->lock);
	if (http->closing)
		return false;
	http->n_pending++;
	http->n_unsent++;
	return true;
}

static enum MHD_Result submit(struct request *request)
{
	struct http *http = request->http;

	if (!count_submitted(http)) {
		set_text(request, 503, "ferryd is stopping\n");
		return send_answer(request);
	}
	request->is_counted = true;
	set_clocks(http, request->connection, 0, USEC_FOREVER);
	MHD_suspend_connection(request->connection);
	request->job.run = run_request;
	workers_submit(http->params.workers, &request->job);
	return MHD_YES;
}

/* --- Reading ------------------------------------------------------------------------------------
 */

static void read_peer_address(struct request *request)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	if (!info || !info->client_addr)
		return;
	socklen_t length = info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
								    : sizeof(struct sockaddr_in);
	if (getnameinfo(info->client_addr, length, request->peer_address,
		    sizeof(request->peer_address), NULL, 0, NI_NUMERICHOST) != 0)
		request->peer_address[0] = '\0';
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
	return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* Decides by the headers alone; sets the answer when there will be no call. */
static void check_headers(struct request *request, const char *method, uint64_t *ret_length)
{
	size_t max = request->http->params.max_body_bytes;
	const char *length = header(request->connection, "Content-Length");

	*ret_length = 0;
	if (length && parse_uint64(length, ret_length) < 0)
		*ret_length = UINT64_MAX;
	if (strcmp(method, "OPTIONS") == 0) {
		set_text(request, 200, "");
		request->allow = "POST, OPTIONS";
	} else if (strcmp(method, "POST") != 0) {
		set_text(request, 405,
			"ferryd answers POST: XML-RPC at any path, JSON-RPC at /jsonrpc\n");
		request->allow = "POST, OPTIONS";
	} else if (header(request->connection, "Transfer-Encoding") || !length) {
		set_text(request, 411, "a request needs a Content-Length (chunks are not read)\n");
	} else if (*ret_length > max) {
		char *text CLEANUP_FREE = xasprintf(
			"a request has at most %zu bytes; this one announces %s\n", max, length);
		set_text(request, 413, text);
	}
}

static void on_stream_closed(void *arg)
{
	count_answered(arg);
}

/* The stream counts as a call until its thread has let go of it. */
static enum MHD_Result begin_stream(
	struct request *request, const struct http_stream_route *route, const char *method)
{
	struct http *http = request->http;
	const struct http_streams *streams = http->params.streams;
	size_t none = 0;
	const struct http_stream_params params = {
		.connection = request->connection,
		.route = route,
		.method = method,
		.peer_address = request->peer_address,
		.closed = on_stream_closed,
		.arg = http,
	};

	if (!count_submitted(http)) {
		set_text(request, 503, "ferryd is stopping\n");
		return send_answer(request);
	}
	request->is_counted = true;
	set_clocks(http, request->connection, HTTP_STREAM_PROGRESS_SEC, USEC_FOREVER);
	struct http_stream *stream = http_stream_new(&params);
	if (streams->begin(streams->arg, stream) == 0) {
		request->stream = stream;
		return http_stream_advance(stream, NULL, &none) ? MHD_YES : MHD_NO;
	}
	http_stream_gone(stream);
	http_stream_close(stream);
	set_text(request, 503, "too many transfers run already, or ferryd is stopping\n");
	return send_answer(request);
}

/* Within the first callback of a request, after its headers. */
static enum MHD_Result begin(struct http *http, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, void **slot)
{
	struct request *request = xcalloc(1, sizeof(*request));
	uint64_t length;

	*slot = request;
	request->http = http;
	request->connection = connection;
	request->wire = strncmp(url, "/jsonrpc", strlen("/jsonrpc")) == 0 ? WIRE_JSON : WIRE_XML;
	request->is_http_1_0 = strcmp(version, "HTTP/1.0") == 0;
	read_peer_address(request);
	const struct http_stream_route *route = http_streams_find(http->params.streams, url);
	if (route && http_stream_route_allows(route, method))
		return begin_stream(request, route, method);
	check_headers(request, method, &length);
	if (route && request->allow)
		request->allow = route->methods;
	/* An answer before the body ends the connection: libmicrohttpd has no use for the rest. */
	if (request->status &&
		(length > DRAIN_MAX_BYTES || header(connection, "Transfer-Encoding")))
		return send_answer(request);
	if (request->status)
		return MHD_YES;
	request->capacity = length;
	request->body = malloc(length ? length : 1); /* sized by the peer, bounded above */
	if (request->body)
		return MHD_YES;
	set_text(request, 503, "no memory for the request\n");
	return send_answer(request);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *data, size_t *length, void **slot)
{
	struct request *request = *slot;

	if (!request)
		return begin(arg, connection, url, method, version, slot);
	if (request->stream)
		return http_stream_advance(request->stream, data, length) ? MHD_YES : MHD_NO;
	if (*length == 0)
		return request->status ? send_answer(request) : submit(request);
	if (!request->status) {
		if (*length > request->capacity - request->length)
			return MHD_NO;
		memcpy(request->body + request->length, data, *length);
		request->length += *length;
	}
	*length = 0;
	return MHD_YES;
}

/* --- Connections --------------------------------------------------------------------------------
 */

/* libmicrohttpd calls this when it has read the request line. */
static void *on_request_line(void *arg, const char *url, struct MHD_Connection *connection)
{
	(void)url;
	set_clocks(arg, connection, PROGRESS_SEC, RECEIVE_SEC * USEC_PER_SEC);
	return NULL;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **slot,
	enum MHD_RequestTerminationCode why)
{
	struct request *request = *slot;

	if (why == MHD_REQUEST_TERMINATED_COMPLETED_OK)
		set_clocks(arg, connection, IDLE_SEC, IDLE_SEC * USEC_PER_SEC);
	if (!request)
		return;
	if (request->stream)
		http_stream_gone(request->stream);
	if (request->is_counted)
		count_sent(request->http);
	buf_free(&request->answer);
	free(request->body);
	free(request);
	*slot = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
	enum MHD_ConnectionNotificationCode what)
{
	struct http *http = arg;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (*context)
			keeper_remove(http->params.keeper, *context);
		*context = NULL;
		return;
	}
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (info)
		*context = keeper_add(http->params.keeper, info->connect_fd,
			clock_deadline(RECEIVE_SEC * USEC_PER_SEC));
}

/* --- The daemon ---------------------------------------------------------------------------------
 */

__attribute__((format(printf, 2, 0))) static void on_log(
	void *arg, const char *format, va_list args)
{
	char *text CLEANUP_FREE = xvasprintf(format, args);

	(void)arg;
	text[strcspn(text, "\n")] = '\0';
	log_debug("http_message", "text=\"%s\"", text);
}

static struct MHD_Daemon *daemon_start(struct http *http)
{
	const struct http_params *params = &http->params;
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_TLS | MHD_ALLOW_SUSPEND_RESUME |
			 MHD_USE_ERROR_LOG;

	/* The logger comes first: libmicrohttpd applies options in order. */
	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER,
		on_log, NULL, MHD_OPTION_LISTEN_SOCKET, params->listen_fd,
		MHD_OPTION_HTTPS_MEM_CERT, params->certificate, MHD_OPTION_HTTPS_MEM_KEY,
		params->key, MHD_OPTION_HTTPS_PRIORITIES,
		"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2", MHD_OPTION_CONNECTION_LIMIT,
		params->max_connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		params->max_connections_per_address, MHD_OPTION_CONNECTION_TIMEOUT, PROGRESS_SEC,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY_BYTES,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_URI_LOG_CALLBACK, on_request_line,
		http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
		on_connection, http, MHD_OPTION_END);
}

int http_start(const struct http_params *params, struct http **ret_http, struct fault *fault)
{
	struct http *http = xcalloc(1, sizeof(*http));

	http->params = *params;
	http->quiesced_fd = MHD_INVALID_SOCKET;
	pthread_mutex_init(&http->lock, NULL);
	pthread_cond_init(&http->changed, NULL);
	http->daemon = daemon_start(http);
	if (!http->daemon) {
		close(params->listen_fd);
		http_stop(http);
		return fault_text(fault, -EINVAL,
			"the HTTPS server did not start: the certificate and the key must be PEM "
			"and belong together");
	}
	*ret_http = http;
	return 0;
}

static bool begin_close(struct http *http)
{
	SCOPE_LOCK(&http->lock);
	bool was_closing = http->closing;
	http->closing = true;
	return !was_closing;
}

void http_close(struct http *http)
{
	if (!begin_close(http))
		return;
	/* libmicrohttpd's thread may still look at the socket: it refuses clients from now on, but
	 * its number must stay taken until the daemon has stopped. */
	http->quiesced_fd = MHD_quiesce_daemon(http->daemon);
	if (http->quiesced_fd != MHD_INVALID_SOCKET)
		shutdown(http->quiesced_fd, SHUT_RDWR);
}

void http_wait_answered(struct http *http)
{
	SCOPE_LOCK(&http->lock);
	while (http->n_pending)
		pthread_cond_wait(&http->changed, &http->lock);
	/* Whoever reads too slowly must not hold up the end. */
	struct timespec until;
	int r = 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FLUSH_SEC;
	while (http->n_unsent && r == 0)
		r = pthread_cond_clockwait(&http->changed, &http->lock, CLOCK_MONOTONIC, &until);
}

struct http *http_stop(struct http *http)
{
	if (!http)
		return NULL;
	if (http->daemon)
		MHD_stop_daemon(http->daemon);
	if (http->quiesced_fd != MHD_INVALID_SOCKET)
		close(http->quiesced_fd);
	pthread_cond_destroy(&http->changed);
	pthread_mutex_destroy(&http->lock);
	free(http);
	return NULL;
}
