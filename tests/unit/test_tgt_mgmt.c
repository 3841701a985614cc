/* SPDX-License-Identifier: Apache-2.0 */
/* The management protocol against a scripted server. */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "target/tgt_mgmt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

/* One connection: reads a request, answers with the bytes it was given, closes. */
struct server {
	char dir[64];
	char path[80];
	int listener;
	pthread_t thread;
	const void *reply;
	size_t n_reply;
	bool silent; /* keeps the connection open, without a word, until stopped */
	struct cancel *stop;
	unsigned char request[16384];
	size_t n_request;
};

struct reply {
	uint32_t error;
	uint32_t length;
	char text[32];
};

static int setup(void **state)
{
	struct server *server = xcalloc(1, sizeof(*server));
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(server->dir, "/tmp/ferry-mgmt-XXXXXX");
	if (!mkdtemp(server->dir))
		return -1;
	snprintf(server->path, sizeof(server->path), "%s/s", server->dir);
	strcpy(address.sun_path, server->path);
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	server->stop = cancel_new();
	*state = server;
	if (bind(server->listener, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	return listen(server->listener, 1);
}

static int teardown(void **state)
{
	struct server *server = *state;

	close(server->listener);
	unlink(server->path);
	int r = rmdir(server->dir);
	cancel_free(server->stop);
	free(server);
	return r;
}

static void *serve(void *arg)
{
	struct server *server = arg;
	int fd CLEANUP_CLOSE = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	uint32_t length = 120;

	while (server->n_request < length && poll(&poll_fd, 1, 2000) > 0) {
		ssize_t n = read(fd, server->request + server->n_request,
			sizeof(server->request) - server->n_request);
		if (n <= 0)
			return NULL;
		server->n_request += (size_t)n;
		if (server->n_request >= 120)
			memcpy(&length, server->request + 72, sizeof(length));
	}
	if (server->silent)
		cancel_sleep(server->stop, 10 * USEC_PER_SEC);
	/* In two pieces: an answer may come torn. */
	size_t half = server->n_reply / 2;
	ssize_t n = write(fd, server->reply, half);
	usleep(2000);
	n += write(fd, (const char *)server->reply + half, server->n_reply - half);
	return (size_t)n == server->n_reply ? NULL : server;
}

static int ask(struct server *server, const struct tgt_request *request, const void *reply,
	size_t n_reply, struct buf *text)
{
	struct tgt_mgmt mgmt = {.socket_path = server->path, .pid = getpid()};

	server->reply = reply;
	server->n_reply = n_reply;
	server->n_request = 0;
	assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
	int r = tgt_mgmt_call(&mgmt, request, NULL, clock_deadline(USEC_PER_SEC), text);
	cancel_request(server->stop, "answered");
	pthread_join(server->thread, NULL);
	return r;
}

static const struct tgt_request show = {
	.mode = TGT_MODE_SYSTEM, .op = TGT_OP_SHOW, .tid = TGT_TID_ALL};

static uint64_t field(const struct server *server, size_t offset, size_t size)
{
	uint64_t value = 0;

	memcpy(&value, server->request + offset, size);
	return value;
}

/* Offsets: tgt.git usr/tgtadm.h on a 64-bit machine, as seen in strace of tgtadm. */
static void a_request_is_laid_out_as_tgtd_reads_it(void **state)
{
	struct server *server = *state;
	struct reply ok = {0, 8, ""};
	struct tgt_request request = {.mode = TGT_MODE_ACCOUNT,
		.op = TGT_OP_BIND,
		.tid = 0x01020304,
		.sid = 0x1122334455667788,
		.lun = 0x99,
		.cid = 0x77,
		.payload = "user=u"};

	assert_int_equal(ask(server, &request, &ok, 8, NULL), 0);
	assert_int_equal(server->n_request, 127);
	assert_int_equal(field(server, 0, 4), 7);
	assert_int_equal(field(server, 4, 4), 3);
	assert_string_equal((char *)server->request + 8, "iscsi");
	assert_int_equal(field(server, 72, 4), 127);
	assert_int_equal(field(server, 76, 4), 0x01020304);
	assert_true(field(server, 80, 8) == 0x1122334455667788);
	assert_int_equal(field(server, 88, 8), 0x99);
	assert_int_equal(field(server, 96, 4), 0x77);
	assert_memory_equal(server->request + 120, "user=u", 7);
}

static void an_answer_is_read_whole(void **state)
{
	struct server *server = *state;
	struct reply reply = {0, 8 + 11, "System:\nabc"};
	struct buf text CLEANUP_BUF = BUF_INIT;

	assert_int_equal(ask(server, &show, &reply, 8 + 11, &text), 0);
	assert_string_equal(text.data, "System:\nabc");
}

static void an_error_of_tgtd_is_its_number(void **state)
{
	struct server *server = *state;
	struct reply reply = {20, 8, ""};

	assert_int_equal(ask(server, &show, &reply, 8, NULL), TGT_ERROR_LUN_ACTIVE);
	assert_string_equal(tgt_error_text(20), "the logical unit is in use");
	for (int i = 0; i <= 24; i++)
		assert_non_null(tgt_error_text(i));
	assert_string_equal(tgt_error_text(25), "unknown error number");
	assert_string_equal(tgt_error_text(-1), "unknown error number");
}

static void a_torn_answer_is_an_error(void **state)
{
	struct server *server = *state;
	struct reply reply = {0, 8 + 11, "System:\nabc"};
	struct buf text CLEANUP_BUF = BUF_INIT;

	for (size_t n = 0; n < 8 + 11; n++)
		assert_int_equal(ask(server, &show, &reply, n, &text), -EPROTO);
	assert_int_equal(text.length, 0);
}

static void a_senseless_answer_is_an_error(void **state)
{
	struct server *server = *state;
	struct reply replies[] = {{0, 0, ""}, {0, 7, ""}, {0, UINT32_MAX, ""},
		{0, TGT_REPLY_MAX + 1, ""}, {UINT32_MAX, 8, ""}, {0x80000000, 8, ""}};

	for (size_t i = 0; i < ARRAY_SIZE(replies); i++)
		assert_int_equal(ask(server, &show, &replies[i], 8, NULL), -EPROTO);
}

static void silence_ends_at_the_deadline(void **state)
{
	struct server *server = *state;
	uint64_t begin = clock_now_usec();

	server->silent = true;
	assert_int_equal(ask(server, &show, NULL, 0, NULL), -ETIMEDOUT);
	assert_true(clock_now_usec() - begin >= USEC_PER_SEC);
	assert_true(clock_now_usec() - begin < 3 * USEC_PER_SEC);
}

static void a_full_queue_of_connections_ends_at_the_deadline(void **state)
{
	struct server *server = *state;
	struct tgt_mgmt mgmt = {.socket_path = server->path};
	int r = 0;

	/* Nobody accepts: some calls wait for an answer, the rest for a place in the queue. */
	for (int i = 0; i < 4; i++) {
		uint64_t begin = clock_now_usec();
		r = tgt_mgmt_call(&mgmt, &show, NULL, clock_deadline(USEC_PER_SEC / 20), NULL);
		assert_int_equal(r, -ETIMEDOUT);
		assert_true(clock_now_usec() - begin < USEC_PER_SEC);
	}
}

static void a_cancel_ends_the_wait(void **state)
{
	struct server *server = *state;
	struct tgt_mgmt mgmt = {.socket_path = server->path};

	cancel_request(server->stop, "test");
	assert_int_equal(tgt_mgmt_call(&mgmt, &show, server->stop, USEC_FOREVER, NULL), -ECANCELED);
}

static void nobody_there_is_told(void **state)
{
	struct server *server = *state;
	struct tgt_mgmt mgmt = {.socket_path = "/tmp/ferry-no-such-socket"};
	char deep[200];

	assert_int_equal(
		tgt_mgmt_call(&mgmt, &show, NULL, clock_deadline(USEC_PER_SEC), NULL), -ENOENT);
	mgmt.socket_path = server->path;
	mgmt.pid = getpid() + 1;
	assert_int_equal(
		tgt_mgmt_call(&mgmt, &show, NULL, clock_deadline(USEC_PER_SEC), NULL), -EPERM);
	shutdown(server->listener, SHUT_RDWR);
	assert_int_equal(tgt_mgmt_call(&mgmt, &show, NULL, clock_deadline(USEC_PER_SEC), NULL),
		-ECONNREFUSED);
	memset(deep, 'x', sizeof(deep));
	deep[0] = '/';
	deep[sizeof(deep) - 1] = '\0';
	mgmt.socket_path = deep;
	assert_int_equal(tgt_mgmt_call(&mgmt, &show, NULL, clock_deadline(USEC_PER_SEC), NULL),
		-ENAMETOOLONG);
}

static void a_request_that_would_crash_tgtd_is_not_sent(void **state)
{
	static const struct tgt_request bad[] = {
		{.mode = TGT_MODE_TARGET, .op = TGT_OP_NEW},
		{.mode = TGT_MODE_ACCOUNT, .op = TGT_OP_NEW},
		{.mode = TGT_MODE_ACCOUNT, .op = TGT_OP_DELETE},
		{.mode = TGT_MODE_DEVICE, .op = TGT_OP_UPDATE},
		{.mode = TGT_MODE_TARGET, .op = TGT_OP_BIND},
	};
	struct tgt_mgmt mgmt = {.socket_path = "/tmp/ferry-no-such-socket"};
	char *longest CLEANUP_FREE = xasprintf("%08191d", 0);
	char *longer CLEANUP_FREE = xasprintf("%08192d", 0);
	struct tgt_request request = {
		.mode = TGT_MODE_TARGET, .op = TGT_OP_UPDATE, .payload = longest};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(
			tgt_mgmt_call(&mgmt, &bad[i], NULL, clock_deadline(USEC_PER_SEC), NULL),
			-EINVAL);
	assert_int_equal(
		tgt_mgmt_call(&mgmt, &request, NULL, clock_deadline(USEC_PER_SEC), NULL), -ENOENT);
	request.payload = longer;
	assert_int_equal(tgt_mgmt_call(&mgmt, &request, NULL, clock_deadline(USEC_PER_SEC), NULL),
		-EMSGSIZE);
}

static void words_have_a_fixed_alphabet(void **state)
{
	(void)state;
	assert_true(tgt_is_word("abcXYZ019", 9, ""));
	assert_true(tgt_is_word("a.b-c", 9, ".-"));
	assert_false(tgt_is_word("abcXYZ0190", 9, ""));
	assert_false(tgt_is_word("", 9, ".-"));
	assert_false(tgt_is_word(NULL, 9, ".-"));
	assert_false(tgt_is_word("a,b", 9, ".-"));
	assert_false(tgt_is_word("a\n", 9, ".-"));
	assert_false(tgt_is_word("\xc3\xa4", 9, ".-"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_request_is_laid_out_as_tgtd_reads_it),
		TEST(an_answer_is_read_whole),
		TEST(an_error_of_tgtd_is_its_number),
		TEST(a_torn_answer_is_an_error),
		TEST(a_senseless_answer_is_an_error),
		TEST(silence_ends_at_the_deadline),
		TEST(a_full_queue_of_connections_ends_at_the_deadline),
		TEST(a_cancel_ends_the_wait),
		TEST(nobody_there_is_told),
		cmocka_unit_test(a_request_that_would_crash_tgtd_is_not_sent),
		cmocka_unit_test(words_have_a_fixed_alphabet),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
