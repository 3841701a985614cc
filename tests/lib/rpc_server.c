/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/rpc_server.h"

#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "xmlrpc/tls.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <sys/socket.h>
#include <time.h>

/* --- Methods ------------------------------------------------------------------------------------
 */

static struct rpc_server *count_call(struct call *call)
{
	struct rpc_server *rpc = call_context(call);

	SCOPE_LOCK(&rpc->lock);
	rpc->n_calls++;
	return rpc;
}

static int handle_echo(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)fault;
	count_call(call);
	*ret_result = value_copy(args[0]);
	return 0;
}

static int handle_wait(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct rpc_server *rpc = count_call(call);

	(void)args, (void)ret_result, (void)fault;
	SCOPE_LOCK(&rpc->lock);
	assert_true(rpc->n_pending < ARRAY_SIZE(rpc->pending));
	rpc->pending[rpc->n_pending++] = call;
	pthread_cond_broadcast(&rpc->changed);
	return CALL_PENDING;
}

static int handle_big(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	size_t n = (size_t)args[0]->integer;
	char *text CLEANUP_FREE = xcalloc(n + 1, 1);

	(void)fault;
	count_call(call);
	memset(text, 'x', n);
	*ret_result = value_new_string(text);
	return 0;
}

static int handle_address(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)args, (void)fault;
	*ret_result = value_new_string(call_peer_address(call));
	return 0;
}

static const struct param any_param[] = {{"any", PARAM_ANY, NULL}};
static const struct param int_param[] = {{"n", PARAM_INT, NULL}};
static const struct method methods[] = {
	{"X.echo", handle_echo, METHOD_NO_SESSION, any_param, 1, 1, "any", "", NULL, 0},
	{"X.wait", handle_wait, METHOD_NO_SESSION, NULL, 0, 0, "string", "", NULL, 0},
	{"X.big", handle_big, METHOD_NO_SESSION, int_param, 1, 1, "string", "", NULL, 0},
	{"X.address", handle_address, METHOD_NO_SESSION, NULL, 0, 0, "string", "", NULL, 0},
};

/* --- Server -------------------------------------------------------------------------------------
 */

void rpc_server_start(struct rpc_server *rpc, unsigned n_workers)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint16_t port = 0;
	const char *colon = rpc->url ? strrchr(rpc->url, ':') : NULL;

	if (colon)
		port = (uint16_t)atoi(colon + 1);
	check_ok(&fault, server_start(
				 &(struct server_params){
					 .address = "127.0.0.1",
					 .port = port,
					 .certificate_file = rpc->certificate,
					 .key_file = rpc->key,
					 .n_workers = n_workers,
					 .max_connections = 600,
					 .max_body_bytes = (size_t)300 << 10,
					 .dispatcher = rpc->dispatcher,
					 .streams = rpc->streams,
				 },
				 &rpc->server, &fault));
	free(rpc->url);
	rpc->url = xasprintf("https://127.0.0.1:%u", server_port(rpc->server));
}

void rpc_server_stop(struct rpc_server *rpc)
{
	rpc->server = server_stop(rpc->server);
}

struct rpc_server *rpc_server_new(unsigned n_workers)
{
	struct rpc_server *rpc = xcalloc(1, sizeof(*rpc));
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	pthread_mutex_init(&rpc->lock, NULL);
	pthread_cond_init(&rpc->changed, NULL);
	strcpy(rpc->folder, "/tmp/ferry-rpc-XXXXXX");
	assert_non_null(mkdtemp(rpc->folder));
	rpc->certificate = xasprintf("%s/crt", rpc->folder);
	rpc->key = xasprintf("%s/key", rpc->folder);
	check_ok(&fault,
		tls_ensure_certificate(rpc->certificate, rpc->key, "test", "127.0.0.1", &fault));
	check_ok(&fault, tls_fingerprint(rpc->certificate, &rpc->fingerprint, &fault));
	rpc->dispatcher = dispatcher_new(&(struct dispatch_hooks){0}, rpc);
	dispatcher_add(rpc->dispatcher, methods, ARRAY_SIZE(methods));
	rpc_server_start(rpc, n_workers);
	return rpc;
}

struct rpc_server *rpc_server_free(struct rpc_server *rpc)
{
	rpc_server_answer(rpc);
	rpc_server_stop(rpc);
	dispatcher_free(rpc->dispatcher);
	unlink(rpc->certificate);
	unlink(rpc->key);
	assert_int_equal(rmdir(rpc->folder), 0);
	free(rpc->certificate);
	free(rpc->key);
	free(rpc->fingerprint);
	free(rpc->url);
	pthread_cond_destroy(&rpc->changed);
	pthread_mutex_destroy(&rpc->lock);
	free(rpc);
	return NULL;
}

void rpc_server_wait_pending(struct rpc_server *rpc, size_t n)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	SCOPE_LOCK(&rpc->lock);
	while (rpc->n_pending < n && r == 0)
		r = pthread_cond_timedwait(&rpc->changed, &rpc->lock, &until);
	assert_int_equal(rpc->n_pending, n);
}

static struct call *take_pending(struct rpc_server *rpc)
{
	SCOPE_LOCK(&rpc->lock);
	return rpc->n_pending ? rpc->pending[--rpc->n_pending] : NULL;
}

void rpc_server_answer(struct rpc_server *rpc)
{
	struct call *call;

	while ((call = take_pending(rpc)))
		call_succeed(call, value_new_string("woken"));
}

size_t rpc_server_calls(struct rpc_server *rpc)
{
	SCOPE_LOCK(&rpc->lock);
	return rpc->n_calls;
}

/* --- Client -------------------------------------------------------------------------------------
 */

struct client *rpc_client_new(struct rpc_server *rpc, const char *fingerprint)
{
	return client_new(&(struct client_params){
		.url = rpc->url, .fingerprint = fingerprint ? fingerprint : rpc->fingerprint});
}

void rpc_client_ping(struct client *client)
{
	struct value *params CLEANUP_VALUE = value_append_string(value_new_array(), "ping");
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;

	check_ok(&fault, client_call(client, "X.echo", params, clock_deadline(30 * USEC_PER_SEC),
				 NULL, &result, &fault));
	assert_string_equal(value_string(result, ""), "ping");
}

/* --- Raw ----------------------------------------------------------------------------------------
 */

struct raw_tls {
	int fd;
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	struct buf received;
};

struct raw_tls *raw_tls_open(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timeval timeout = {.tv_sec = 30};
	struct raw_tls *raw = xcalloc(1, sizeof(*raw));
	int r;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	raw->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(raw->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	assert_int_equal(connect(raw->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	gnutls_certificate_allocate_credentials(&raw->credentials);
	gnutls_init(&raw->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
	gnutls_set_default_priority(raw->session);
	gnutls_credentials_set(raw->session, GNUTLS_CRD_CERTIFICATE, raw->credentials);
	gnutls_transport_set_int(raw->session, raw->fd);
	do {
		r = gnutls_handshake(raw->session);
	} while (r < 0 && !gnutls_error_is_fatal(r));
	assert_int_equal(r, 0);
	return raw;
}

struct raw_tls *raw_tls_close(struct raw_tls *raw)
{
	gnutls_deinit(raw->session);
	gnutls_certificate_free_credentials(raw->credentials);
	close(raw->fd);
	buf_free(&raw->received);
	free(raw);
	return NULL;
}

void raw_tls_send(struct raw_tls *raw, const char *text)
{
	size_t length = strlen(text);

	while (length) {
		ssize_t n = gnutls_record_send(raw->session, text, length);
		if (n == GNUTLS_E_INTERRUPTED || n == GNUTLS_E_AGAIN)
			continue;
		if (n < 0) /* The server has closed: the test looks at what it answered. */
			return;
		text += n;
		length -= (size_t)n;
	}
}

/* Bytes of the first complete answer in the buffer; 0 if there is none. */
static size_t answer_length(const struct buf *received)
{
	const char *end = received->data ? strstr(received->data, "\r\n\r\n") : NULL;
	const char *length =
		received->data ? strcasestr(received->data, "\r\ncontent-length:") : NULL;

	if (!end)
		return 0;
	size_t total = (size_t)(end + 4 - received->data);
	if (length && length < end)
		total += (size_t)atol(length + strlen("\r\ncontent-length:"));
	return total <= received->length ? total : 0;
}

char *raw_tls_receive(struct raw_tls *raw)
{
	size_t length;
	char chunk[4096];

	while (!(length = answer_length(&raw->received))) {
		ssize_t n = gnutls_record_recv(raw->session, chunk, sizeof(chunk));
		if (n > 0)
			buf_append(&raw->received, chunk, (size_t)n);
		else if (n == 0 || gnutls_error_is_fatal((int)n))
			return NULL;
	}
	char *answer = xstrndup(raw->received.data, length);
	raw->received.length -= length;
	memmove(raw->received.data, raw->received.data + length, raw->received.length + 1);
	return answer;
}

void raw_tls_post(struct raw_tls *raw, const char *path, const char *body)
{
	char *text CLEANUP_FREE =
		xasprintf("POST %s HTTP/1.1\r\nHost: test\r\n"
			  "Content-Type: text/xml\r\nContent-Length: %zu\r\n\r\n%s",
			path, strlen(body), body);

	raw_tls_send(raw, text);
}
