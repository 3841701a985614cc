/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/rpc_server.h"
#include "xmlrpc/codec.h"
#include "xmlrpc/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <sys/socket.h>

#define N_WAITING 200

static int setup(void **state)
{
	*state = rpc_server_new(4);
	return 0;
}

static int teardown(void **state)
{
	rpc_server_free(*state);
	return 0;
}

static int call(struct client *client, const char *method, struct value *params,
	uint64_t timeout_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault)
{
	struct value *owned CLEANUP_VALUE = params;

	return client_call(
		client, method, owned, clock_deadline(timeout_usec), cancel, ret_result, fault);
}

static void values_and_failures_come_back(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *sent CLEANUP_VALUE = value_new_struct();
	struct value *result CLEANUP_VALUE = NULL;

	value_set_string(sent, "name", "caf\xc3\xa9 <&>\r\n");
	value_set_bool(sent, "flag", true);
	value_set(sent, "list", value_append_string(value_new_array(), ""));
	check_ok(&fault, call(client, "X.echo", value_append(value_new_array(), value_copy(sent)),
				 30 * USEC_PER_SEC, NULL, &result, &fault));
	assert_true(value_equal(result, sent));
	assert_int_equal(
		call(client, "X.nope", value_new_array(), 30 * USEC_PER_SEC, NULL, &result, &fault),
		-EREMOTEIO);
	assert_string_equal(fault.code, "MESSAGE_METHOD_UNKNOWN");
	assert_string_equal(fault.params[0], "X.nope");
}

static void a_bare_list_comes_back(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;

	check_ok(&fault, call(client, "system.listMethods", value_new_array(), 30 * USEC_PER_SEC,
				 NULL, &result, &fault));
	assert_true(value_contains_string(result, "X.echo"));
}

static void the_handler_sees_the_peers_address(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;

	check_ok(&fault, call(client, "X.address", value_new_array(), 30 * USEC_PER_SEC, NULL,
				 &result, &fault));
	assert_string_equal(value_string(result, ""), "127.0.0.1");
}

static void a_large_answer_arrives_whole(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	const size_t n = 5000000;

	check_ok(&fault,
		call(client, "X.big", value_append(value_new_array(), value_new_int((int64_t)n)),
			60 * USEC_PER_SEC, NULL, &result, &fault));
	assert_int_equal(strlen(value_string(result, "")), n);
}

static void an_answer_beyond_the_limit_is_refused(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	int64_t n = (int64_t)codec_limits_response.max_bytes;

	assert_int_equal(call(client, "X.big", value_append(value_new_array(), value_new_int(n)),
				 60 * USEC_PER_SEC, NULL, &result, &fault),
		-EBADMSG);
	assert_string_equal(fault.params[1], "the answer is too big");
	rpc_client_ping(client);
}

/* --- Long polls ---------------------------------------------------------------------------------
 */

struct waiting {
	pthread_t thread;
	struct rpc_server *rpc;
	uint64_t timeout_usec;
	struct cancel *cancel;
	int result;
	uint64_t took_usec;
	bool woken;
};

static void *wait_main(void *arg)
{
	struct waiting *waiting = arg;
	struct client *client CLEANUP_CLIENT = rpc_client_new(waiting->rpc, NULL);
	struct value *result CLEANUP_VALUE = NULL;
	uint64_t start = clock_now_usec();

	waiting->result = call(client, "X.wait", value_new_array(), waiting->timeout_usec,
		waiting->cancel, &result, NULL);
	waiting->took_usec = clock_now_usec() - start;
	waiting->woken = strcmp(value_string(result, ""), "woken") == 0;
	return NULL;
}

static void start_waiting(struct waiting *waiting, struct rpc_server *rpc)
{
	waiting->rpc = rpc;
	if (!waiting->timeout_usec)
		waiting->timeout_usec = 120 * USEC_PER_SEC;
	assert_int_equal(pthread_create(&waiting->thread, NULL, wait_main, waiting), 0);
}

static void two_hundred_long_polls_cost_no_worker(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct waiting *waiting CLEANUP_FREE = xcalloc(N_WAITING, sizeof(*waiting));

	for (size_t i = 0; i < N_WAITING; i++)
		start_waiting(&waiting[i], rpc);
	rpc_server_wait_pending(rpc, N_WAITING);
	for (int i = 0; i < 50; i++)
		rpc_client_ping(client);
	rpc_server_answer(rpc);
	for (size_t i = 0; i < N_WAITING; i++) {
		pthread_join(waiting[i].thread, NULL);
		assert_int_equal(waiting[i].result, 0);
		assert_true(waiting[i].woken);
	}
}

static void a_cancelled_call_ends_within_a_second(void **state)
{
	struct rpc_server *rpc = *state;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct waiting waiting = {.cancel = cancel};

	start_waiting(&waiting, rpc);
	rpc_server_wait_pending(rpc, 1);
	uint64_t start = clock_now_usec();
	cancel_request(cancel, "test");
	pthread_join(waiting.thread, NULL);
	assert_int_equal(waiting.result, -ECANCELED);
	assert_true(clock_now_usec() - start < USEC_PER_SEC);
}

static void a_deadline_ends_the_call(void **state)
{
	struct rpc_server *rpc = *state;
	struct waiting waiting = {.timeout_usec = 300 * USEC_PER_MSEC};

	start_waiting(&waiting, rpc);
	pthread_join(waiting.thread, NULL);
	assert_int_equal(waiting.result, -ETIMEDOUT);
	assert_true(waiting.took_usec >= 300 * USEC_PER_MSEC);
	assert_true(waiting.took_usec < 5 * USEC_PER_SEC);
}

static void a_client_lives_on_after_a_call_that_timed_out(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;

	for (size_t i = 1; i <= 3; i++) {
		rpc_client_ping(client);
		assert_int_equal(call(client, "X.wait", value_new_array(), 200 * USEC_PER_MSEC,
					 NULL, &result, &fault),
			-ETIMEDOUT);
		assert_string_equal(fault.code, "CANNOT_CONTACT_HOST");
		rpc_server_wait_pending(rpc, i);
	}
	rpc_client_ping(client);
}

/* --- Trust --------------------------------------------------------------------------------------
 */

struct tls_listener {
	pthread_t thread;
	int fd;
	uint16_t port;
	gnutls_certificate_credentials_t credentials;
	int handshake;
	ssize_t received; /* what came after the handshake */
};

static void *listener_main(void *arg)
{
	struct tls_listener *listener = arg;
	gnutls_session_t session;
	char data[100];

	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NO_SIGNAL);
	gnutls_set_default_priority(session);
	gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, listener->credentials);
	gnutls_transport_set_int(session, fd);
	do {
		listener->handshake = gnutls_handshake(session);
	} while (listener->handshake < 0 && !gnutls_error_is_fatal(listener->handshake));
	listener->received = gnutls_record_recv(session, data, sizeof(data));
	gnutls_deinit(session);
	close(fd);
	return NULL;
}

/* Takes one connection and says whether a byte of a request came. */
static void listener_start(struct tls_listener *listener, struct rpc_server *rpc)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener->fd, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(listener->fd, 1), 0);
	assert_int_equal(getsockname(listener->fd, (struct sockaddr *)&address, &length), 0);
	listener->port = ntohs(address.sin_port);
	gnutls_certificate_allocate_credentials(&listener->credentials);
	assert_int_equal(gnutls_certificate_set_x509_key_file(listener->credentials,
				 rpc->certificate, rpc->key, GNUTLS_X509_FMT_PEM),
		0);
	assert_int_equal(pthread_create(&listener->thread, NULL, listener_main, listener), 0);
}

static void listener_join(struct tls_listener *listener)
{
	pthread_join(listener->thread, NULL);
	gnutls_certificate_free_credentials(listener->credentials);
	close(listener->fd);
}

static ssize_t bytes_sent_to_listener(
	struct rpc_server *rpc, const char *fingerprint, int *ret_result, struct fault *fault)
{
	struct tls_listener listener = {0};
	struct value *result = NULL;

	listener_start(&listener, rpc);
	char *url CLEANUP_FREE = xasprintf("https://127.0.0.1:%u", listener.port);
	struct client *client CLEANUP_CLIENT =
		client_new(&(struct client_params){.url = url, .fingerprint = fingerprint});
	*ret_result = call(client, "session.login_with_password",
		value_append_string(value_new_array(), "secret"), 10 * USEC_PER_SEC, NULL, &result,
		fault);
	listener_join(&listener);
	return listener.received;
}

static void a_wrong_pin_is_refused_before_a_byte_of_the_request(void **state)
{
	static const char other[] =
		"00000000000000000000000000000000000000000000000000000000000000ff";
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct rpc_server *rpc = *state;
	int r;

	/* The same listener does see bytes when the pin is right. */
	assert_true(bytes_sent_to_listener(rpc, rpc->fingerprint, &r, &fault) > 0);
	assert_int_equal(r, -ECONNRESET);
	assert_true(bytes_sent_to_listener(rpc, other, &r, &fault) <= 0);
	assert_int_equal(r, -EKEYREJECTED);
	assert_string_equal(fault.code, "TLS_CONNECTION_FAILED");
	assert_string_equal(fault.params[0], "127.0.0.1");
	/* Without a pin the self-signed certificate is not trusted either. */
	assert_true(bytes_sent_to_listener(rpc, NULL, &r, &fault) <= 0);
	assert_int_equal(r, -EKEYREJECTED);
}

static void a_ca_file_is_trusted_for_its_name_only(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT =
		client_new(&(struct client_params){.url = rpc->url, .ca_file = rpc->certificate});

	rpc_client_ping(client);
	char *named CLEANUP_FREE = xasprintf("https://localhost:%u", server_port(rpc->server));
	struct client *by_name CLEANUP_CLIENT =
		client_new(&(struct client_params){.url = named, .ca_file = rpc->certificate});
	struct value *result = NULL;
	assert_int_equal(call(by_name, "X.echo", value_append_string(value_new_array(), "x"),
				 10 * USEC_PER_SEC, NULL, &result, NULL),
		-EKEYREJECTED);
	assert_int_equal(rpc_server_calls(rpc), 1);
}

static void a_client_without_a_usable_address_or_pin_says_so(void **state)
{
	static const char *const bad[][3] = {
		{"no url", NULL, "is no https://host:port"},
		{"https://127.0.0.1:1", "12ab", "is not 64 hex digits"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct value *result = NULL;
		struct client *client CLEANUP_CLIENT = client_new(
			&(struct client_params){.url = bad[i][0], .fingerprint = bad[i][1]});
		assert_int_equal(
			call(client, "m", value_new_array(), USEC_PER_SEC, NULL, &result, &fault),
			-EINVAL);
		assert_non_null(strstr(fault.params[1], bad[i][2]));
	}
}

/* --- Servers that are gone ----------------------------------------------------------------------
 */

static void a_server_may_restart_between_calls(void **state)
{
	struct rpc_server *rpc = *state;
	struct client *client CLEANUP_CLIENT = rpc_client_new(rpc, NULL);
	struct value *result = NULL;

	for (int i = 0; i < 3; i++) {
		rpc_client_ping(client);
		rpc_server_stop(rpc);
		assert_int_equal(call(client, "X.echo", value_append_string(value_new_array(), "x"),
					 10 * USEC_PER_SEC, NULL, &result, NULL),
			-ECONNREFUSED);
		rpc_server_start(rpc, 4);
	}
	rpc_client_ping(client);
}

static void *stop_main(void *arg)
{
	rpc_server_stop(arg);
	return NULL;
}

static void stopping_waits_for_what_is_pending(void **state)
{
	struct rpc_server *rpc = *state;
	struct waiting waiting = {0};
	pthread_t stopper;

	start_waiting(&waiting, rpc);
	rpc_server_wait_pending(rpc, 1);
	assert_int_equal(pthread_create(&stopper, NULL, stop_main, rpc), 0);
	rpc_server_answer(rpc);
	pthread_join(stopper, NULL);
	pthread_join(waiting.thread, NULL);
	assert_int_equal(waiting.result, 0);
	assert_true(waiting.woken);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(values_and_failures_come_back),
		TEST(a_bare_list_comes_back),
		TEST(the_handler_sees_the_peers_address),
		TEST(a_large_answer_arrives_whole),
		TEST(an_answer_beyond_the_limit_is_refused),
		TEST(two_hundred_long_polls_cost_no_worker),
		TEST(a_cancelled_call_ends_within_a_second),
		TEST(a_deadline_ends_the_call),
		TEST(a_client_lives_on_after_a_call_that_timed_out),
		TEST(a_wrong_pin_is_refused_before_a_byte_of_the_request),
		TEST(a_ca_file_is_trusted_for_its_name_only),
		TEST(a_client_without_a_usable_address_or_pin_says_so),
		TEST(a_server_may_restart_between_calls),
		TEST(stopping_waits_for_what_is_pending),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
