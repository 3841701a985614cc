/* SPDX-License-Identifier: Apache-2.0 */
/* Files through a real server, and the client for them. */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "tests/lib/rpc_server.h"
#include "xmlrpc/file_client.h"
#include "xmlrpc/http_stream.h"

#include <errno.h>

#define MIB ((size_t)1 << 20)

struct fixture {
	struct rpc_server *rpc;
	struct http_streams streams;
	struct cancel *stop;
};

/* --- What the server's routes do ----------------------------------------------------------------
 */

struct job {
	struct fixture *fixture;
	struct http_stream *stream;
};

static void answer(struct http_stream *stream, unsigned status, const char *text)
{
	http_stream_answer(stream, &(struct http_stream_answer){.status = status,
					   .content_type = "application/json",
					   .length = strlen(text)});
	http_stream_write(stream, text, strlen(text), clock_deadline(10 * USEC_PER_SEC), NULL);
}

/* The length of the body and the sum of its bytes. */
static void run_sum(struct job *job)
{
	unsigned char piece[10000];
	unsigned long long length = 0, sum = 0;
	ssize_t n;

	while ((n = http_stream_read(
			job->stream, piece, sizeof(piece), USEC_FOREVER, job->fixture->stop)) > 0) {
		length += (unsigned long long)n;
		for (ssize_t i = 0; i < n; i++)
			sum += piece[i];
	}
	if (n < 0)
		return;
	char *text CLEANUP_FREE = xasprintf("[\"%llu\",\"%llu\"]", length, sum);
	answer(job->stream, 200, text);
}

/* n bytes, of which only so many are sent as `sent` says. */
static void run_bytes(struct job *job)
{
	size_t n = (size_t)atoll(http_stream_query(job->stream, "n"));
	const char *sent = http_stream_query(job->stream, "sent");
	size_t due = sent ? (size_t)atoll(sent) : n;
	char piece[10000];
	int r = 0;

	memset(piece, 'x', sizeof(piece));
	http_stream_answer(job->stream,
		&(struct http_stream_answer){
			.status = 200, .content_type = "application/octet-stream", .length = n});
	for (size_t at = 0; r == 0 && at < due; at += sizeof(piece))
		r = http_stream_write(job->stream, piece, MIN(due - at, sizeof(piece)),
			USEC_FOREVER, job->fixture->stop);
	if (r == 0)
		http_stream_flush(job->stream, USEC_FOREVER, job->fixture->stop);
}

static void run_elsewhere(struct job *job)
{
	struct value *headers CLEANUP_VALUE = value_new_struct();

	value_set(headers, "Location", value_new_format("%s/sum", job->fixture->rpc->url));
	value_set_string(headers, "X-Ferry-Fingerprint", job->fixture->rpc->fingerprint);
	http_stream_answer(job->stream,
		&(struct http_stream_answer){
			.status = 302, .content_type = "text/plain", .headers = headers});
}

static void run_refuse(struct job *job)
{
	answer(job->stream, 409, "[\"NO\",\"because\"]");
}

static void *job_main(void *arg)
{
	struct job *job = arg;
	void (*run)(struct job * job) =
		*(void (*const *)(struct job *))http_stream_route(job->stream)->data;

	run(job);
	http_stream_close(job->stream);
	free(job);
	return NULL;
}

static int begin(void *arg, struct http_stream *stream)
{
	struct fixture *fixture = arg;
	struct job *job = xcalloc(1, sizeof(*job));
	pthread_attr_t detached;
	pthread_t thread;

	if (http_stream_query(stream, "busy")) {
		free(job);
		return -EAGAIN;
	}
	*job = (struct job){fixture, stream};
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	int r = pthread_create(&thread, &detached, job_main, job);
	pthread_attr_destroy(&detached);
	return -r;
}

static void (*const sum)(struct job *job) = run_sum;
static void (*const bytes)(struct job *job) = run_bytes;
static void (*const elsewhere)(struct job *job) = run_elsewhere;
static void (*const refuse)(struct job *job) = run_refuse;
static const struct http_stream_route routes[] = {
	{"/sum", "PUT", &sum},
	{"/bytes", "GET, HEAD", &bytes},
	{"/elsewhere", "PUT, GET", &elsewhere},
	{"/refuse", "PUT, GET", &refuse},
};

static int setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));

	fixture->stop = cancel_new();
	fixture->rpc = rpc_server_new(2);
	fixture->streams = (struct http_streams){
		.routes = routes, .n_routes = ARRAY_SIZE(routes), .begin = begin, .arg = fixture};
	rpc_server_stop(fixture->rpc);
	fixture->rpc->streams = &fixture->streams;
	rpc_server_start(fixture->rpc, 2);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	cancel_request(fixture->stop, "the test has ended");
	rpc_server_free(fixture->rpc);
	cancel_free(fixture->stop);
	free(fixture);
	return 0;
}

/* --- A client's file ----------------------------------------------------------------------------
 */

struct file {
	size_t n_left; /* to send, or to take before it fails */
	uint64_t n_moved;
	uint64_t sum;
	uint64_t progress;
	int error;
};

static ssize_t give(void *arg, char *data, size_t max)
{
	struct file *file = arg;
	size_t n = MIN(max, file->n_left);

	if (file->error && file->n_left == 0)
		return file->error;
	for (size_t i = 0; i < n; i++) {
		data[i] = (char)((file->n_moved + i) * 7);
		file->sum += (unsigned char)data[i];
	}
	file->n_left -= n;
	file->n_moved += n;
	return (ssize_t)n;
}

static ssize_t swallow(void *arg, char *data, size_t max)
{
	struct file *file = arg;

	for (size_t i = 0; i < max; i++)
		assert_int_equal(data[i], 'x');
	file->n_moved += max;
	return file->error && file->n_moved > file->n_left ? file->error : (ssize_t)max;
}

static void note(void *arg, uint64_t done, uint64_t total)
{
	struct file *file = arg;

	(void)total;
	file->progress = done;
}

static int transfer(struct fixture *fixture, const char *path, const struct value *queries,
	bool is_upload, uint64_t length, struct file *file, struct value **ret_answer,
	struct fault *fault)
{
	const struct file_transfer transfer = {
		.server = {.url = fixture->rpc->url, .fingerprint = fixture->rpc->fingerprint},
		.path = path,
		.queries = queries,
		.is_upload = is_upload,
		.length = length,
		.move = is_upload ? give : swallow,
		.progress = note,
		.arg = file,
		.ret_answer = ret_answer,
	};

	return file_transfer(&transfer, NULL, fault);
}

static int upload(struct fixture *fixture, const char *path, uint64_t length, struct file *file,
	struct value **ret_answer, struct fault *fault)
{
	struct value *queries CLEANUP_VALUE = value_new_struct();

	return transfer(fixture, path, queries, true, length, file, ret_answer, fault);
}

static int download(struct fixture *fixture, const char *n, const char *sent, struct file *file,
	struct fault *fault)
{
	struct value *queries CLEANUP_VALUE = value_set_string(value_new_struct(), "n", n);

	if (sent)
		value_set_string(queries, "sent", sent);
	return transfer(fixture, "/bytes", queries, false, FILE_LENGTH_UNKNOWN, file, NULL, fault);
}

/* --- Tests --------------------------------------------------------------------------------------
 */

static void check_upload(struct fixture *fixture, const char *path, size_t size, bool in_chunks)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *said CLEANUP_VALUE = NULL;
	struct file file = {.n_left = size};

	check_ok(&fault, upload(fixture, path, in_chunks ? FILE_LENGTH_UNKNOWN : size, &file, &said,
				 &fault));
	char *length CLEANUP_FREE = xasprintf("%zu", size);
	char *total CLEANUP_FREE = xasprintf("%llu", (unsigned long long)file.sum);
	assert_string_equal(value_string(said->array.items[0], ""), length);
	assert_string_equal(value_string(said->array.items[1], ""), total);
	assert_int_equal(file.n_moved, size);
}

static void a_body_arrives_whole(void **state)
{
	static const size_t sizes[] = {0, 1, 9999, HTTP_STREAM_BUFFER_BYTES - 1,
		HTTP_STREAM_BUFFER_BYTES, HTTP_STREAM_BUFFER_BYTES + 1, 5 * MIB + 3};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		check_upload(*state, "/sum", sizes[i], false);
		check_upload(*state, "/sum", sizes[i], true);
	}
}

static void an_answer_arrives_whole(void **state)
{
	static const char *const sizes[] = {"0", "1", "10000", "262144", "262145", "5242881"};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct file file = {0};
		check_ok(&fault, download(*state, sizes[i], NULL, &file, &fault));
		assert_int_equal(file.n_moved, atoll(sizes[i]));
	}
}

static void an_answer_cut_short_is_seen(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct file file = {0};

	assert_int_equal(download(*state, "5000000", "1000000", &file, &fault), -ECONNRESET);
	assert_string_equal(fault.code, "CANNOT_CONTACT_HOST");
	assert_int_equal(file.n_moved, 1000000);
}

static void a_refusal_comes_before_the_body(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct file file = {.n_left = 50 * MIB};

	assert_int_equal(upload(*state, "/refuse", 50 * MIB, &file, NULL, &fault), -EREMOTEIO);
	assert_string_equal(fault.code, "NO");
	assert_string_equal(fault.params[0], "because");
	assert_int_equal(file.n_moved, 0);
}

static void another_host_gets_the_body(void **state)
{
	check_upload(*state, "/elsewhere", 3 * MIB, false);
}

static void a_file_that_fails_ends_it(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct file out = {.n_left = MIB, .error = -EIO};
	struct file in = {.n_left = MIB, .error = -ENOSPC};

	assert_int_equal(upload(*state, "/sum", 5 * MIB, &out, NULL, &fault), -EIO);
	assert_int_equal(download(*state, "5000000", NULL, &in, &fault), -ENOSPC);
	/* The server has seen that both have gone: the next ones are served. */
	check_upload(*state, "/sum", MIB, false);
}

static void calls_go_on_beside_stalled_ones(void **state)
{
	static const char put[] =
		"PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\nxx";
	static const char get[] = "GET /bytes?n=50000000 HTTP/1.1\r\nHost: h\r\n\r\n";
	struct fixture *fixture = *state;
	struct raw_tls *stalled[10];
	struct client *client = rpc_client_new(fixture->rpc, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(stalled); i++) {
		stalled[i] = raw_tls_open(server_port(fixture->rpc->server));
		raw_tls_send(stalled[i], i < ARRAY_SIZE(stalled) / 2 ? get : put);
	}
	for (int i = 0; i < 20; i++)
		rpc_client_ping(client);
	client_free(client);
	check_upload(fixture, "/sum", MIB, false);
	/* Those that send are open still when the server stops. */
	for (size_t i = 0; i < ARRAY_SIZE(stalled) / 2; i++)
		raw_tls_close(stalled[i]);
	cancel_request(fixture->stop, "the server stops");
	rpc_server_stop(fixture->rpc);
	for (size_t i = ARRAY_SIZE(stalled) / 2; i < ARRAY_SIZE(stalled); i++)
		raw_tls_close(stalled[i]);
	rpc_server_start(fixture->rpc, 2);
}

static char *ask(struct fixture *fixture, const char *request)
{
	struct raw_tls *raw = raw_tls_open(server_port(fixture->rpc->server));

	raw_tls_send(raw, request);
	char *said = raw_tls_receive(raw);
	raw_tls_close(raw);
	assert_non_null(said);
	return said;
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no \"%s\" in: %s", part, text);
}

static void what_is_no_stream_is_as_before(void **state)
{
	char *wrong CLEANUP_FREE = ask(*state, "GET /sum HTTP/1.1\r\nHost: h\r\n\r\n");
	char *unknown CLEANUP_FREE = ask(*state, "GET /sums HTTP/1.1\r\nHost: h\r\n\r\n");
	char *call CLEANUP_FREE =
		ask(*state, "POST /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
	char *busy CLEANUP_FREE =
		ask(*state, "PUT /sum?busy=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");

	assert_has(wrong, "HTTP/1.1 405");
	assert_has(wrong, "\r\nAllow: PUT\r\n");
	assert_has(unknown, "HTTP/1.1 405");
	assert_has(unknown, "\r\nAllow: POST, OPTIONS\r\n");
	assert_has(call, "HTTP/1.1 500");
	assert_has(busy, "HTTP/1.1 503");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_body_arrives_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_arrives_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_cut_short_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusal_comes_before_the_body, setup, teardown),
		cmocka_unit_test_setup_teardown(another_host_gets_the_body, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_fails_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(calls_go_on_beside_stalled_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_stream_is_as_before, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
