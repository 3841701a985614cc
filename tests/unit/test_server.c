/* SPDX-License-Identifier: Apache-2.0 */
/* The server by itself: what raw bytes get for an answer. With the client: test_client.c. */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/rpc_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define ECHO                                                                                       \
	"<methodCall><methodName>X.echo</methodName><params><param><value>a</value></param>"       \
	"</params></methodCall>"
#define WAIT "<methodCall><methodName>X.wait</methodName></methodCall>"
#define ANSWER(value)                                                                              \
	"<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member>"            \
	"<name>Status</name><value>Success</value></member><member><name>Value</"                  \
	"name><value>" value                                                                       \
	"</value></member></struct></value></param></params></methodResponse>"

static int setup(void **state)
{
	*state = rpc_server_new(2);
	return 0;
}

static int teardown(void **state)
{
	rpc_server_free(*state);
	return 0;
}

static struct raw_tls *open_raw(struct rpc_server *rpc)
{
	return raw_tls_open(server_port(rpc->server));
}

static void assert_has(const char *answer, const char *part)
{
	assert_non_null(answer);
	if (!strcasestr(answer, part))
		fail_msg("no \"%s\" in: %s", part, answer);
}

static void assert_body(const char *answer, const char *body)
{
	assert_non_null(answer);
	assert_string_equal(strstr(answer, "\r\n\r\n") + 4, body);
}

static void headers_are_those_of_the_contract(void **state)
{
	struct rpc_server *rpc = *state;
	struct raw_tls *raw = open_raw(rpc);

	raw_tls_post(raw, "/RPC2", ECHO);
	char *answer CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(answer, "HTTP/1.1 200 OK\r\n");
	assert_has(answer, "\r\nContent-Type: text/xml\r\n");
	assert_has(answer, "\r\nAccess-Control-Allow-Origin: *\r\n");
	assert_has(answer, "\r\nAccess-Control-Allow-Headers: X-Requested-With\r\n");
	assert_has(answer, "\r\nCache-Control: no-cache, no-store\r\n");
	assert_has(answer, "\r\nConnection: keep-alive\r\n");
	assert_has(answer, "\r\nContent-Length: ");
	assert_body(answer, ANSWER("a"));
	raw_tls_close(raw);
}

static void one_connection_serves_many_requests_on_every_path(void **state)
{
	static const char *const paths[] = {"/", "/RPC2", "/xmlrpc", "/json", "/any/thing?x=y"};
	static const char json[] =
		"{\"id\":0,\"jsonrpc\":\"2.0\",\"method\":\"X.echo\",\"params\":[5]}";
	struct rpc_server *rpc = *state;
	struct raw_tls *raw = open_raw(rpc);

	for (size_t i = 0; i < 20; i++) {
		raw_tls_post(raw, paths[i % ARRAY_SIZE(paths)], ECHO);
		char *answer CLEANUP_FREE = raw_tls_receive(raw);
		assert_has(answer, "Content-Type: text/xml\r\n");
		assert_body(answer, ANSWER("a"));
	}
	raw_tls_post(raw, "/jsonrpc", json);
	char *answer CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(answer, "Content-Type: application/json\r\n");
	assert_body(answer, "{\"jsonrpc\":\"2.0\",\"result\":5,\"id\":0}");
	raw_tls_close(raw);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	struct rpc_server *rpc = *state;
	struct raw_tls *raw = open_raw(rpc);

	raw_tls_post(raw, "/", ECHO);
	raw_tls_post(raw, "/jsonrpc",
		"{\"id\":9,\"jsonrpc\":\"2.0\",\"method\":\"X.echo\",\"params\":[1]}");
	char *first CLEANUP_FREE = raw_tls_receive(raw);
	char *second CLEANUP_FREE = raw_tls_receive(raw);
	assert_body(first, ANSWER("a"));
	assert_body(second, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":9}");
	raw_tls_close(raw);
}

static void close_and_http_1_0_end_the_connection(void **state)
{
	static const char *const requests[][2] = {
		{"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.0 500"},
		{"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
			"HTTP/1.0 500"},
		{"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"
		 "hello",
			"HTTP/1.1 500"},
	};
	struct rpc_server *rpc = *state;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct raw_tls *raw = open_raw(rpc);
		raw_tls_send(raw, requests[i][0]);
		char *answer CLEANUP_FREE = raw_tls_receive(raw);
		assert_has(answer, requests[i][1]);
		assert_has(answer, "\r\nConnection: close\r\n");
		assert_null(raw_tls_receive(raw));
		raw_tls_close(raw);
	}
	struct raw_tls *raw = open_raw(rpc);
	char *text CLEANUP_FREE =
		xasprintf("POST / HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s", strlen(ECHO), ECHO);
	raw_tls_send(raw, text);
	char *answer CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(answer, "HTTP/1.0 200");
	assert_body(answer, ANSWER("a"));
	assert_null(raw_tls_receive(raw));
	raw_tls_close(raw);
}

struct exchange {
	const char *request;
	const char *status;
	const char *has;
};

static void what_is_no_call_gets_a_plain_refusal(void **state)
{
	static const struct exchange exchanges[] = {
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 500 ",
			"Content-Type: text/html\r\n"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 500 ",
			"the document is empty"},
		{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405 ", "Allow: POST, OPTIONS\r\n"},
		{"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 405 ",
			"Connection: close\r\n"},
		{"POST / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 411 ", "Content-Length"},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"HTTP/1.1 411 ", "chunks are not read"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400 ", ""},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
			"HTTP/1.1 4", ""},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000\r\n\r\n",
			"HTTP/1.1 413 ", "at most 307200 bytes"},
	};
	struct rpc_server *rpc = *state;

	for (size_t i = 0; i < ARRAY_SIZE(exchanges); i++) {
		struct raw_tls *raw = open_raw(rpc);
		raw_tls_send(raw, exchanges[i].request);
		char *answer CLEANUP_FREE = raw_tls_receive(raw);
		if (!answer)
			fail_msg("no answer to: %s", exchanges[i].request);
		assert_has(answer, exchanges[i].status);
		assert_has(answer, exchanges[i].has);
		assert_null(raw_tls_receive(raw));
		raw_tls_close(raw);
	}
	struct raw_tls *raw = open_raw(rpc);
	raw_tls_send(raw, "nonsense\r\n\r\n");
	assert_null(raw_tls_receive(raw));
	raw_tls_close(raw);
	assert_int_equal(rpc_server_calls(rpc), 0);
}

static void options_is_answered_for_browsers(void **state)
{
	struct rpc_server *rpc = *state;
	struct raw_tls *raw = open_raw(rpc);

	raw_tls_send(raw, "OPTIONS /jsonrpc HTTP/1.1\r\nHost: h\r\n\r\n");
	char *answer CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(answer, "HTTP/1.1 200 OK\r\n");
	assert_has(answer, "\r\nAccess-Control-Allow-Origin: *\r\n");
	assert_body(answer, "");
	raw_tls_post(raw, "/", ECHO);
	char *next CLEANUP_FREE = raw_tls_receive(raw);
	assert_body(next, ANSWER("a"));
	raw_tls_close(raw);
}

/* A request that echoes n bytes in all. */
static char *body_of(size_t n)
{
	static const char head[] = "<methodCall><methodName>X.echo</methodName><params><param>"
				   "<value>";
	static const char tail[] = "</value></param></params></methodCall>";
	char *body = xcalloc(n + 1, 1);

	memset(body, 'x', n);
	memcpy(body, head, strlen(head));
	memcpy(body + n - strlen(tail), tail, strlen(tail));
	return body;
}

static void a_body_is_taken_up_to_the_limit_and_refused_beyond(void **state)
{
	struct rpc_server *rpc = *state;
	char *largest CLEANUP_FREE = body_of(300 << 10);
	char *larger CLEANUP_FREE = body_of((300 << 10) + 1);
	char *huge CLEANUP_FREE = body_of(4 << 20);
	struct raw_tls *raw = open_raw(rpc);

	raw_tls_post(raw, "/", largest);
	char *answer CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(answer, "HTTP/1.1 200 OK\r\n");
	raw_tls_post(raw, "/", larger);
	char *refusal CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(refusal, "HTTP/1.1 413 ");
	assert_null(raw_tls_receive(raw));
	raw_tls_close(raw);
	raw = open_raw(rpc);
	raw_tls_post(raw, "/", huge);
	char *again CLEANUP_FREE = raw_tls_receive(raw);
	assert_has(again, "HTTP/1.1 413 ");
	raw_tls_close(raw);
	assert_int_equal(rpc_server_calls(rpc), 1);
}

static void half_a_request_holds_no_worker(void **state)
{
	struct rpc_server *rpc = *state;
	struct raw_tls *raws[12];
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(raws); i++) {
		raws[i] = open_raw(rpc);
		raw_tls_send(raws[i],
			i % 2 ? "POST / HTTP/1.1\r\nHost: h\r\nContent-Le"
			      : "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n<meth");
	}
	for (int i = 0; i < 20; i++)
		rpc_client_ping(client);
	for (size_t i = 0; i < ARRAY_SIZE(raws); i++)
		raw_tls_close(raws[i]);
	rpc_client_ping(client);
}

static void a_client_that_left_does_not_hurt(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);

	for (int i = 0; i < 20; i++) {
		struct raw_tls *raw = open_raw(rpc);
		raw_tls_post(raw, "/", WAIT);
		rpc_server_wait_pending(rpc, (size_t)i + 1);
		raw_tls_close(raw);
	}
	rpc_server_answer(rpc);
	rpc_client_ping(client);
}

static void closing_lets_pending_calls_end_and_refuses_new_ones(void **state)
{
	struct rpc_server *rpc = *state;
	struct raw_tls *waiting = open_raw(rpc);
	struct raw_tls *idle = open_raw(rpc);

	raw_tls_post(idle, "/", ECHO);
	char *before CLEANUP_FREE = raw_tls_receive(idle);
	assert_body(before, ANSWER("a"));
	raw_tls_post(waiting, "/", WAIT);
	rpc_server_wait_pending(rpc, 1);
	server_close(rpc->server);
	raw_tls_post(idle, "/", ECHO);
	char *refusal CLEANUP_FREE = raw_tls_receive(idle);
	assert_has(refusal, "HTTP/1.1 503 ");
	rpc_server_answer(rpc);
	char *answer CLEANUP_FREE = raw_tls_receive(waiting);
	assert_body(answer, ANSWER("woken"));
	raw_tls_close(waiting);
	raw_tls_close(idle);
}

static size_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int listen_anywhere(uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd > 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(fd, 10), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static int start_on_socket(
	struct rpc_server *rpc, int fd, const char *key, struct server **ret_server)
{
	return server_start(
		&(struct server_params){
			.listen_fd = fd,
			.certificate_file = rpc->certificate,
			.key_file = key,
			.n_workers = 1,
			.max_connections = 10,
			.max_body_bytes = 1000,
			.dispatcher = rpc->dispatcher,
		},
		ret_server, NULL);
}

static void a_socket_that_listens_already_is_served_and_closed(void **state)
{
	struct rpc_server *rpc = *state;
	struct server *server = NULL;
	size_t n_fds = count_fds();
	uint16_t port;

	assert_int_equal(start_on_socket(rpc, listen_anywhere(&port), rpc->key, &server), 0);
	assert_int_equal(server_port(server), port);
	struct raw_tls *raw = raw_tls_open(port);
	raw_tls_post(raw, "/", ECHO);
	char *answer CLEANUP_FREE = raw_tls_receive(raw);
	assert_body(answer, ANSWER("a"));
	raw_tls_close(raw);
	server_stop(server);
	/* Also when the server does not come to serve it. */
	assert_true(start_on_socket(rpc, listen_anywhere(&port), "/nonexistent", &server) < 0);
	assert_int_equal(count_fds(), n_fds);
}

static int start_with(struct rpc_server *rpc, const char *address, uint16_t port, const char *key,
	struct fault *fault)
{
	struct server *server = NULL;
	int r = server_start(
		&(struct server_params){
			.address = address,
			.port = port,
			.certificate_file = rpc->certificate,
			.key_file = key,
			.n_workers = 1,
			.max_connections = 10,
			.max_body_bytes = 1000,
			.dispatcher = rpc->dispatcher,
		},
		&server, fault);

	assert_null(server);
	return r;
}

static void a_server_that_cannot_start_says_why_and_leaks_nothing(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct rpc_server *rpc = *state;
	uint16_t port = server_port(rpc->server);
	size_t n_fds = count_fds();

	assert_int_equal(start_with(rpc, "127.0.0.1", port, rpc->key, &fault), -EADDRINUSE);
	assert_non_null(strstr(fault.params[0], "cannot listen on 127.0.0.1 port"));
	assert_int_equal(start_with(rpc, "localhost", 0, rpc->key, &fault), -EINVAL);
	assert_non_null(strstr(fault.params[0], "\"localhost\" is no numeric"));
	assert_int_equal(start_with(rpc, "127.0.0.1", 0, "/nonexistent", &fault), -ENOENT);
	assert_non_null(strstr(fault.params[0], "/nonexistent"));
	assert_int_equal(start_with(rpc, "127.0.0.1", 0, rpc->certificate, &fault), -EINVAL);
	assert_non_null(strstr(fault.params[0], "belong together"));
	assert_int_equal(count_fds(), n_fds);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(headers_are_those_of_the_contract),
		TEST(one_connection_serves_many_requests_on_every_path),
		TEST(pipelined_requests_are_answered_in_order),
		TEST(close_and_http_1_0_end_the_connection),
		TEST(what_is_no_call_gets_a_plain_refusal),
		TEST(options_is_answered_for_browsers),
		TEST(a_body_is_taken_up_to_the_limit_and_refused_beyond),
		TEST(half_a_request_holds_no_worker),
		TEST(a_client_that_left_does_not_hurt),
		TEST(closing_lets_pending_calls_end_and_refuses_new_ones),
		TEST(a_socket_that_listens_already_is_served_and_closed),
		TEST(a_server_that_cannot_start_says_why_and_leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
