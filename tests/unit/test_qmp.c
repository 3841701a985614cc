/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's client against a scripted peer: each test says what QEMU answers, and when it goes.
 */
#include "tests/lib/check.h"

#include "agent/guest/qmp.h"
#include "agent/guest/qmp_reader.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOON     (10 * USEC_PER_SEC)
#define SHORTLY  (100 * USEC_PER_MSEC)
#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n"
#define READY    "{\"return\": {}, \"id\": \"0\"}\n"
#define CALLERS  8
#define CALLS    200

struct peer {
	char dir[64];
	char path[80];
	int listener;
	int fd;
	struct qmp_reader reader;
	pthread_t thread;
	void (*script)(struct peer *peer);
	struct cancel *stop;
	struct cancel *lost; /* requested with the reason that the client was told */
	struct qmp *qmp;
	struct fault fault;
	pthread_mutex_t lock;
	char events[128]; /* names, as the client was told */
	unsigned n_in_band;
	bool is_told_all;
};

static int setup(void **state)
{
	struct peer *peer = xcalloc(1, sizeof(*peer));
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(peer->dir, "/tmp/ferry-qmp-XXXXXX");
	if (!mkdtemp(peer->dir))
		return -1;
	snprintf(peer->path, sizeof(peer->path), "%s/q", peer->dir);
	strcpy(address.sun_path, peer->path);
	peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	peer->fd = -1;
	peer->stop = cancel_new();
	peer->lost = cancel_new();
	pthread_mutex_init(&peer->lock, NULL);
	*state = peer;
	if (bind(peer->listener, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	return listen(peer->listener, 1);
}

static int teardown(void **state)
{
	struct peer *peer = *state;

	qmp_close(peer->qmp);
	cancel_request(peer->stop, "the test is over");
	if (peer->script)
		pthread_join(peer->thread, NULL);
	cleanup_close(&peer->fd);
	close(peer->listener);
	unlink(peer->path);
	qmp_reader_clear(&peer->reader);
	fault_clear(&peer->fault);
	cancel_free(peer->stop);
	cancel_free(peer->lost);
	pthread_mutex_destroy(&peer->lock);
	int r = rmdir(peer->dir);
	free(peer);
	return r;
}

/* --- The peer -----------------------------------------------------------------------------------
 */

static void say(struct peer *peer, const char *text)
{
	(void)send(peer->fd, text, strlen(text), MSG_NOSIGNAL);
}

/* The next command, or QMP_OTHER's zero message when the client has gone. */
static bool hear(struct peer *peer, struct qmp_message *ret_message)
{
	for (;;) {
		char data[4096];
		struct pollfd fd = {.fd = peer->fd, .events = POLLIN};
		int r = qmp_reader_next(&peer->reader, ret_message, NULL);
		if (r != 0)
			return r > 0;
		if (cancel_poll(peer->stop, &fd, 1, clock_deadline(SOON)) <= 0)
			return false;
		ssize_t n = read(peer->fd, data, sizeof(data));
		if (n <= 0 || qmp_reader_feed(&peer->reader, data, (size_t)n, NULL) < 0)
			return false;
	}
}

/* Hears one command and forgets it. */
static void expect_command(struct peer *peer)
{
	struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;

	hear(peer, &message);
}

static void greet(struct peer *peer)
{
	say(peer, GREETING);
	expect_command(peer);
	say(peer, READY);
}

static void *peer_main(void *arg)
{
	struct peer *peer = arg;
	struct pollfd fd = {.fd = peer->listener, .events = POLLIN};

	if (cancel_poll(peer->stop, &fd, 1, clock_deadline(SOON)) <= 0)
		return NULL;
	peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
	peer->script(peer);
	return NULL;
}

/* --- The client ---------------------------------------------------------------------------------
 */

static void told_event(void *arg, const char *name, const struct value *data)
{
	struct peer *peer = arg;
	SCOPE_LOCK(&peer->lock);
	size_t used = strlen(peer->events);

	assert_int_equal(data->type, VALUE_STRUCT);
	snprintf(peer->events + used, sizeof(peer->events) - used, "%s ", name);
}

static void told_lost(void *arg, const char *reason)
{
	struct peer *peer = arg;

	cancel_request(peer->lost, reason);
}

static int open_within(struct peer *peer, void (*script)(struct peer *peer), uint64_t usec)
{
	const struct qmp_params params = {
		.path = peer->path,
		.deadline_usec = clock_deadline(usec),
		.event = told_event,
		.lost = told_lost,
		.arg = peer,
	};

	peer->script = script;
	assert_int_equal(pthread_create(&peer->thread, NULL, peer_main, peer), 0);
	return qmp_open(&params, &peer->qmp, &peer->fault);
}

static void open_to(struct peer *peer, void (*script)(struct peer *peer))
{
	check_ok(&peer->fault, open_within(peer, script, SOON));
	assert_int_equal(qmp_peer(peer->qmp), getpid());
}

static int call(struct peer *peer, const char *command, uint64_t usec, struct value **ret_value)
{
	fault_clear(&peer->fault);
	return qmp_call(
		peer->qmp, command, NULL, clock_deadline(usec), NULL, ret_value, &peer->fault);
}

static void wait_lost(struct peer *peer, const char *reason)
{
	assert_int_equal(cancel_poll(peer->lost, NULL, 0, clock_deadline(SOON)), -ECANCELED);
	if (!strstr(cancel_reason(peer->lost), reason))
		print_error("lost: %s\n", cancel_reason(peer->lost));
	assert_non_null(strstr(cancel_reason(peer->lost), reason));
}

/* --- Scripts and tests --------------------------------------------------------------------------
 */

static void script_replies_in_reverse(struct peer *peer)
{
	greet(peer);
	expect_command(peer);
	expect_command(peer);
	say(peer,
		"{\"event\": \"STOP\"}\n{\"return\": \"second\", \"id\": \"2\"}\n"
		"{\"event\": \"RESUME\", \"data\": {}}\n{\"return\": \"first\", \"id\": \"1\"}\n");
	expect_command(peer);
	say(peer, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}, \"id\": "
		  "\"3\"}\n");
	expect_command(peer);
}

struct caller {
	struct peer *peer;
	struct value *answer;
	int result;
};

static void *caller_main(void *arg)
{
	struct caller *caller = arg;

	caller->result = qmp_call(caller->peer->qmp, "query", NULL, clock_deadline(SOON), NULL,
		&caller->answer, NULL);
	return NULL;
}

static void each_call_gets_its_own_reply(void **state)
{
	struct peer *peer = *state;
	struct caller callers[2] = {{.peer = peer}, {.peer = peer}};
	pthread_t threads[2];

	open_to(peer, script_replies_in_reverse);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, caller_main, &callers[i]), 0);
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(callers[0].result, 0);
	assert_int_equal(callers[1].result, 0);
	assert_false(value_equal(callers[0].answer, callers[1].answer));
	for (size_t i = 0; i < 2; i++)
		value_free(callers[i].answer);
	assert_int_equal(call(peer, "third", SOON, NULL), -EREMOTEIO);
	assert_non_null(strstr(peer->fault.params[0], "not now"));
	assert_non_null(strstr(peer->fault.params[0], "third"));
	assert_string_equal(peer->events, "STOP RESUME ");
}

static void script_echo(struct peer *peer)
{
	greet(peer);
	for (;;) {
		struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;
		if (!hear(peer, &message))
			return;
		char *reply CLEANUP_FREE =
			xasprintf("{\"return\": \"%s\", \"id\": \"%s\"}\n", message.id, message.id);
		say(peer, reply);
	}
}

static void *busy_caller(void *arg)
{
	struct peer *peer = arg;

	for (size_t i = 0; i < CALLS; i++) {
		struct value *answer CLEANUP_VALUE = NULL;
		if (qmp_call(peer->qmp, "query", NULL, clock_deadline(SOON), NULL, &answer, NULL) <
			0)
			return peer;
	}
	return NULL;
}

static void many_threads_may_call_at_once(void **state)
{
	struct peer *peer = *state;
	pthread_t threads[CALLERS];
	void *failed;

	open_to(peer, script_echo);
	for (size_t i = 0; i < CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, busy_caller, peer), 0);
	for (size_t i = 0; i < CALLERS; i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	/* Closed by the client: nobody is told that the connection was lost. */
	peer->qmp = qmp_close(peer->qmp);
	assert_false(cancel_is_requested(peer->lost));
}

static void script_late(struct peer *peer)
{
	greet(peer);
	expect_command(peer);
	expect_command(peer);
	say(peer, "{\"return\": \"late\", \"id\": \"1\"}\n{\"return\": \"own\", \"id\": \"2\"}\n");
	expect_command(peer);
}

static void a_late_reply_disturbs_nobody(void **state)
{
	struct peer *peer = *state;
	struct value *answer CLEANUP_VALUE = NULL;

	open_to(peer, script_late);
	assert_int_equal(call(peer, "slow", SHORTLY, NULL), -ETIMEDOUT);
	check_ok(&peer->fault, call(peer, "query", SOON, &answer));
	assert_string_equal(value_string(answer, ""), "own");
}

static void a_cancelled_call_returns_at_once(void **state)
{
	struct peer *peer = *state;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();

	open_to(peer, script_late);
	cancel_request(cancel, "enough");
	assert_int_equal(
		qmp_call(peer->qmp, "slow", NULL, clock_deadline(SOON), cancel, NULL, &peer->fault),
		-ECANCELED);
}

static void script_dies_in_a_call(struct peer *peer)
{
	greet(peer);
	expect_command(peer);
	cleanup_close(&peer->fd);
	peer->fd = -1;
}

static void a_peer_that_goes_fails_the_call_and_all_later_ones(void **state)
{
	struct peer *peer = *state;
	uint64_t begin = clock_now_usec();

	open_to(peer, script_dies_in_a_call);
	assert_int_equal(call(peer, "query", SOON, NULL), -ECONNRESET);
	assert_non_null(strstr(peer->fault.params[0], "query: QMP: "));
	wait_lost(peer, "QMP: ");
	assert_int_equal(call(peer, "again", SOON, NULL), -ECONNRESET);
	assert_true(clock_now_usec() - begin < SOON / 2);
}

static void script_garbage(struct peer *peer)
{
	greet(peer);
	expect_command(peer);
	say(peer, "\x01\x02 this is no JSON\n");
	expect_command(peer);
}

static void garbage_breaks_the_connection(void **state)
{
	struct peer *peer = *state;

	open_to(peer, script_garbage);
	assert_int_equal(call(peer, "query", SOON, NULL), -ECONNRESET);
	wait_lost(peer, "not JSON");
}

static void script_endless_line(struct peer *peer)
{
	char bytes[65536];

	greet(peer);
	memset(bytes, 'x', sizeof(bytes));
	while (!cancel_is_requested(peer->lost) &&
		send(peer->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		;
}

static void an_endless_line_breaks_the_connection(void **state)
{
	struct peer *peer = *state;

	open_to(peer, script_endless_line);
	wait_lost(peer, "a line of more than");
	peer->qmp = qmp_close(peer->qmp);
}

static void script_error_without_id(struct peer *peer)
{
	greet(peer);
	expect_command(peer);
	say(peer, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n");
	expect_command(peer);
}

static void an_error_for_nobody_breaks_the_connection(void **state)
{
	struct peer *peer = *state;

	open_to(peer, script_error_without_id);
	assert_int_equal(call(peer, "query", SOON, NULL), -ECONNRESET);
	wait_lost(peer, "JSON parse error");
}

static void script_silent(struct peer *peer)
{
	expect_command(peer);
}

static void silence_instead_of_a_greeting_times_out(void **state)
{
	struct peer *peer = *state;

	assert_int_equal(open_within(peer, script_silent, SHORTLY), -ETIMEDOUT);
	assert_non_null(strstr(peer->fault.params[0], "another client"));
	assert_null(peer->qmp);
}

static void script_chatter(struct peer *peer)
{
	say(peer, "{\"event\": \"EARLY\"}\n{\"return\": {}, \"id\": \"0\"}\n");
	greet(peer);
	expect_command(peer);
}

static void what_stands_before_the_greeting_is_skipped(void **state)
{
	struct peer *peer = *state;

	open_to(peer, script_chatter);
	assert_string_equal(peer->events, "");
}

static void script_without_oob(struct peer *peer)
{
	say(peer, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n");
	expect_command(peer);
	say(peer, READY);
	expect_command(peer);
}

static void out_of_band_needs_a_qemu_that_has_it(void **state)
{
	struct peer *peer = *state;

	open_to(peer, script_without_oob);
	assert_int_equal(qmp_call_oob(peer->qmp, "yank", NULL, clock_deadline(SOON), NULL, NULL,
				 &peer->fault),
		-EOPNOTSUPP);
}

static void out_of_band_calls_are_answered(void **state)
{
	struct peer *peer = *state;
	struct value *answer CLEANUP_VALUE = NULL;

	open_to(peer, script_echo);
	check_ok(&peer->fault, qmp_call_oob(peer->qmp, "yank", NULL, clock_deadline(SOON), NULL,
				       &answer, &peer->fault));
	assert_string_equal(value_string(answer, ""), "o1");
}

/* Answers nothing in band until something out of band comes, then all that it was told, and then
 * one more. */
static void script_hangs_in_band(struct peer *peer)
{
	struct buf replies CLEANUP_BUF = BUF_INIT;
	bool is_last = false;

	greet(peer);
	while (!is_last) {
		struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;
		if (!hear(peer, &message))
			return;
		is_last = peer->is_told_all;
		buf_printf(
			&replies, "{\"return\": \"%s\", \"id\": \"%s\"}\n", message.id, message.id);
		if (*message.id == 'o')
			peer->is_told_all = true;
		else
			peer->n_in_band++;
		if (peer->is_told_all)
			say(peer, replies.data);
		if (peer->is_told_all)
			buf_free(&replies);
	}
}

static void out_of_band_passes_what_is_not_answered(void **state)
{
	struct peer *peer = *state;
	struct value *answer CLEANUP_VALUE = NULL;

	open_to(peer, script_hangs_in_band);
	for (int i = 0; i < 10; i++)
		assert_int_equal(call(peer, "query", SHORTLY / 10, NULL), -ETIMEDOUT);
	check_ok(&peer->fault, qmp_call_oob(peer->qmp, "yank", NULL, clock_deadline(SOON), NULL,
				       NULL, &peer->fault));
	check_ok(&peer->fault, call(peer, "query", SOON, &answer));
	assert_string_equal(value_string(answer, ""), "12");
	peer->qmp = qmp_close(peer->qmp);
	pthread_join(peer->thread, NULL);
	peer->script = NULL;
	/* QEMU would stop to read at eight. Those that waited until nobody wanted them never came.
	 */
	assert_int_equal(peer->n_in_band, 6 + 1);
}

/* The descriptor that comes with the bytes of "add-fd", and no other; -1: none. */
static int hear_descriptor(struct peer *peer, struct qmp_message *ret_message)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control = {0};
	char data[4096];
	struct iovec piece = {.iov_base = data, .iov_len = sizeof(data)};
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	int fd = -1;
	ssize_t n = recvmsg(peer->fd, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	if (n > 0 && qmp_reader_feed(&peer->reader, data, (size_t)n, NULL) == 0)
		qmp_reader_next(&peer->reader, ret_message, NULL);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static void script_writes_to_what_it_is_given(struct peer *peer)
{
	struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;

	greet(peer);
	expect_command(peer);
	say(peer, "{\"return\": {}, \"id\": \"1\"}\n");
	int fd CLEANUP_CLOSE = hear_descriptor(peer, &message);
	if (fd >= 0)
		(void)!write(fd, "hello", 5);
	say(peer, "{\"return\": {\"fdset-id\": 4}, \"id\": \"2\"}\n");
	expect_command(peer);
	say(peer, "{\"return\": {}, \"id\": \"3\"}\n");
}

static void a_file_goes_with_its_command(void **state)
{
	struct peer *peer = *state;
	struct value *answer CLEANUP_VALUE = NULL;
	char text[6] = "";
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	open_to(peer, script_writes_to_what_it_is_given);
	check_ok(&peer->fault, call(peer, "query", SOON, NULL));
	check_ok(&peer->fault, qmp_call_fd(peer->qmp, "add-fd", NULL, ends[1], clock_deadline(SOON),
				       NULL, &answer, &peer->fault));
	assert_int_equal(value_find_int(answer, "fdset-id", 0), 4);
	/* The caller's own is still open, and what the peer was given is the same pipe. */
	assert_int_equal(close(ends[1]), 0);
	assert_int_equal(read(ends[0], text, 5), 5);
	assert_string_equal(text, "hello");
	/* Nobody here holds the other end any longer: it was given away, not kept. */
	check_ok(&peer->fault, call(peer, "query", SOON, NULL));
	assert_int_equal(read(ends[0], text, 1), 0);
	close(ends[0]);
}

static void no_socket_is_an_error(void **state)
{
	struct peer *peer = *state;
	const struct qmp_params params = {
		.path = "/nonexistent/qmp", .deadline_usec = clock_deadline(SOON)};

	assert_int_equal(qmp_open(&params, &peer->qmp, &peer->fault), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_call_gets_its_own_reply),
		TEST(many_threads_may_call_at_once),
		TEST(a_late_reply_disturbs_nobody),
		TEST(a_cancelled_call_returns_at_once),
		TEST(a_peer_that_goes_fails_the_call_and_all_later_ones),
		TEST(garbage_breaks_the_connection),
		TEST(an_endless_line_breaks_the_connection),
		TEST(an_error_for_nobody_breaks_the_connection),
		TEST(silence_instead_of_a_greeting_times_out),
		TEST(what_stands_before_the_greeting_is_skipped),
		TEST(out_of_band_needs_a_qemu_that_has_it),
		TEST(out_of_band_calls_are_answered),
		TEST(out_of_band_passes_what_is_not_answered),
		TEST(a_file_goes_with_its_command),
		TEST(no_socket_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
