/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of a dirty bitmap against a scripted NBD server (the NBD protocol: doc/proto.md): each
 * test says what it answers to a request for block status. */
#include "tests/lib/check.h"

#include "agent/guest/dirty_internal.h"
#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOON  (20 * USEC_PER_SEC)
#define KIB   UINT32_C(1024)
#define SIZE  (UINT64_C(1) << 20)
#define DIRTY 1
#define CLEAN 0

#define OPT_GO               7
#define OPT_STRUCTURED_REPLY 8
#define OPT_SET_META_CONTEXT 10
#define REP_ACK              1
#define REP_INFO             3
#define REP_META_CONTEXT     4
#define CMD_BLOCK_STATUS     7
#define CONTEXT_ID           5

struct entry {
	uint32_t length;
	uint32_t flags;
};

struct server {
	char dir[64];
	char path[80];
	int listener;
	int fd;
	pthread_t thread;
	struct cancel *stop;
	struct fault fault;
	const char *offers; /* the bitmap */
	/* What is said to the n-th request. False: nothing any more. */
	bool (*answer)(struct server *server, unsigned n, uint64_t handle);
	/* What came out. */
	struct extent extents[16];
	size_t n_extents;
	size_t n_batches;
};

static int setup(void **state)
{
	struct server *server = xcalloc(1, sizeof(*server));
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	*state = server;
	strcpy(server->dir, "/tmp/ferry-nbd-XXXXXX");
	if (!mkdtemp(server->dir))
		return -1;
	snprintf(server->path, sizeof(server->path), "%s/n", server->dir);
	strcpy(address.sun_path, server->path);
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	server->fd = -1;
	server->stop = cancel_new();
	server->offers = "b";
	if (bind(server->listener, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	return listen(server->listener, 1);
}

static int teardown(void **state)
{
	struct server *server = *state;

	cancel_request(server->stop, "the test is over");
	if (server->thread)
		pthread_join(server->thread, NULL);
	cleanup_close(&server->fd);
	close(server->listener);
	unlink(server->path);
	cancel_free(server->stop);
	fault_clear(&server->fault);
	int r = rmdir(server->dir);
	free(server);
	return r;
}

/* --- The server ---------------------------------------------------------------------------------
 */

static void say(struct server *server, const void *data, size_t length)
{
	(void)send(server->fd, data, length, MSG_NOSIGNAL);
}

static void say16(struct server *server, uint16_t number)
{
	number = htobe16(number);
	say(server, &number, sizeof(number));
}

static void say32(struct server *server, uint32_t number)
{
	number = htobe32(number);
	say(server, &number, sizeof(number));
}

static void say64(struct server *server, uint64_t number)
{
	number = htobe64(number);
	say(server, &number, sizeof(number));
}

static bool hear(struct server *server, void *data, size_t length)
{
	char *at = data;

	while (length) {
		struct pollfd fd = {.fd = server->fd, .events = POLLIN};
		if (cancel_poll(server->stop, &fd, 1, clock_deadline(SOON)) <= 0)
			return false;
		ssize_t n = read(server->fd, at, length);
		if (n <= 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}

static void reply_option(struct server *server, uint32_t option, uint32_t type, uint32_t length)
{
	say64(server, UINT64_C(0x3e889045565a9));
	say32(server, option);
	say32(server, type);
	say32(server, length);
}

static void offer(struct server *server)
{
	char *context CLEANUP_FREE = xasprintf("qemu:dirty-bitmap:%s", server->offers);

	reply_option(
		server, OPT_SET_META_CONTEXT, REP_META_CONTEXT, (uint32_t)(4 + strlen(context)));
	say32(server, CONTEXT_ID);
	say(server, context, strlen(context));
}

/* Until the client has what it wants. */
static bool negotiate(struct server *server)
{
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option;
		uint32_t length;
	} request;
	char data[512];
	uint32_t flags;

	say(server, "NBDMAGICIHAVEOPT", 16);
	say16(server, 3); /* fixed newstyle, no zeroes */
	if (!hear(server, &flags, sizeof(flags)))
		return false;
	for (;;) {
		if (!hear(server, &request, sizeof(request)) ||
			!hear(server, data, MIN(be32toh(request.length), sizeof(data))))
			return false;
		uint32_t option = be32toh(request.option);
		if (option == OPT_SET_META_CONTEXT && *server->offers)
			offer(server);
		if (option == OPT_GO) {
			reply_option(server, option, REP_INFO, 12);
			say16(server, 0);
			say64(server, 2 * SIZE);
			say16(server, 3); /* has flags, read-only */
		}
		reply_option(server, option, REP_ACK, 0);
		if (option == OPT_GO)
			return true;
	}
}

static void *server_main(void *arg)
{
	struct server *server = arg;
	struct pollfd fd = {.fd = server->listener, .events = POLLIN};
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags;
		uint16_t type;
		uint64_t handle;
		uint64_t offset;
		uint32_t length;
	} request;

	if (cancel_poll(server->stop, &fd, 1, clock_deadline(SOON)) <= 0)
		return NULL;
	server->fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
	bool goes_on = negotiate(server);
	for (unsigned n = 0; goes_on && hear(server, &request, sizeof(request)); n++)
		goes_on = be16toh(request.type) == CMD_BLOCK_STATUS &&
			  server->answer(server, n, request.handle);
	shutdown(server->fd, SHUT_RDWR);
	return NULL;
}

static void say_extents(
	struct server *server, uint64_t handle, const struct entry *entries, size_t n)
{
	say32(server, 0x668e33ef);
	say16(server, 1); /* done */
	say16(server, 5); /* block status */
	say(server, &handle, sizeof(handle));
	say32(server, (uint32_t)(4 + 8 * n));
	say32(server, CONTEXT_ID);
	for (size_t i = 0; i < n; i++) {
		say32(server, entries[i].length);
		say32(server, entries[i].flags);
	}
}

/* --- The client ---------------------------------------------------------------------------------
 */

static int take(void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	struct server *server = arg;

	(void)fault;
	server->n_batches++;
	for (size_t i = 0; i < n; i++) {
		assert_true(server->n_extents < ARRAY_SIZE(server->extents));
		server->extents[server->n_extents++] = extents[i];
	}
	return 0;
}

static int read_from(
	struct server *server, bool (*answer)(struct server *server, unsigned n, uint64_t handle))
{
	const struct dirty_source source = {
		.socket = server->path, .export = "e", .bitmap = "b", .size_bytes = SIZE};

	server->answer = answer;
	assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
	return dirty_nbd_read(&source, take, server, &server->fault);
}

static void check_extent(const struct server *server, size_t i, uint64_t offset, uint64_t length)
{
	assert_true(i < server->n_extents);
	assert_int_equal(server->extents[i].offset, offset);
	assert_int_equal(server->extents[i].length, length);
}

/* --- Answers and tests --------------------------------------------------------------------------
 */

static bool answer_by_halves(struct server *server, unsigned n, uint64_t handle)
{
	static const struct entry first[] = {
		{64 * KIB, DIRTY}, {64 * KIB, CLEAN}, {64 * KIB, DIRTY}, {320 * KIB, DIRTY}};
	static const struct entry second[] = {{4 * KIB, DIRTY}, {508 * KIB, CLEAN}};

	say_extents(server, handle, n ? second : first, n ? ARRAY_SIZE(second) : ARRAY_SIZE(first));
	return true;
}

static void neighbours_become_one_across_replies(void **state)
{
	struct server *server = *state;

	check_ok(&server->fault, read_from(server, answer_by_halves));
	assert_int_equal(server->n_extents, 2);
	check_extent(server, 0, 0, 64 * KIB);
	check_extent(server, 1, 128 * KIB, 388 * KIB);
}

static bool answer_beyond_the_end(struct server *server, unsigned n, uint64_t handle)
{
	static const struct entry entries[] = {
		{1020 * KIB, CLEAN}, {512 * KIB, DIRTY}, {512 * KIB, DIRTY}};

	(void)n;
	say_extents(server, handle, entries, ARRAY_SIZE(entries));
	return true;
}

static void what_is_beyond_the_disk_is_cut(void **state)
{
	struct server *server = *state;

	check_ok(&server->fault, read_from(server, answer_beyond_the_end));
	assert_int_equal(server->n_extents, 1);
	check_extent(server, 0, 1020 * KIB, 4 * KIB);
}

static bool answer_clean(struct server *server, unsigned n, uint64_t handle)
{
	static const struct entry entries[] = {{1024 * KIB, CLEAN}};

	(void)n;
	say_extents(server, handle, entries, ARRAY_SIZE(entries));
	return true;
}

static void a_clean_bitmap_has_no_extents(void **state)
{
	struct server *server = *state;

	check_ok(&server->fault, read_from(server, answer_clean));
	assert_int_equal(server->n_batches, 0);
}

static void a_bitmap_that_is_not_offered_is_an_error(void **state)
{
	struct server *server = *state;

	server->offers = "";
	assert_int_equal(read_from(server, answer_clean), -EPROTO);
	assert_non_null(strstr(server->fault.params[0], "does not offer"));
}

static void another_bitmap_is_not_ours(void **state)
{
	struct server *server = *state;

	server->offers = "b2";
	assert_int_equal(read_from(server, answer_clean), -EPROTO);
}

static bool answer_nothing_at_all(struct server *server, unsigned n, uint64_t handle)
{
	static const struct entry entries[] = {{0, DIRTY}, {1024 * KIB, CLEAN}};

	(void)n;
	say_extents(server, handle, entries, ARRAY_SIZE(entries));
	return true;
}

static void an_empty_extent_is_an_error(void **state)
{
	struct server *server = *state;

	assert_true(read_from(server, answer_nothing_at_all) < 0);
	assert_int_equal(server->n_extents, 0);
}

static bool answer_odd(struct server *server, unsigned n, uint64_t handle)
{
	static const struct entry entries[] = {{1000, DIRTY}};

	(void)n;
	say_extents(server, handle, entries, ARRAY_SIZE(entries));
	return true;
}

static void an_extent_that_is_not_of_sectors_is_an_error(void **state)
{
	struct server *server = *state;

	assert_int_equal(read_from(server, answer_odd), -EPROTO);
}

static bool answer_torn(struct server *server, unsigned n, uint64_t handle)
{
	(void)n;
	(void)handle;
	say32(server, 0x668e33ef);
	say16(server, 1);
	return false;
}

static void a_torn_reply_is_an_error(void **state)
{
	struct server *server = *state;

	assert_int_equal(read_from(server, answer_torn), -ENOTCONN);
	assert_non_null(strstr(server->fault.params[0], server->path));
}

static bool answer_garbage(struct server *server, unsigned n, uint64_t handle)
{
	(void)n;
	(void)handle;
	say(server, "HTTP/1.1 200 OK\r\n\r\n", 19);
	return true;
}

static void garbage_is_an_error(void **state)
{
	struct server *server = *state;

	assert_true(read_from(server, answer_garbage) < 0);
}

static bool answer_never(struct server *server, unsigned n, uint64_t handle)
{
	(void)server;
	(void)n;
	(void)handle;
	return true;
}

static void silence_is_not_waited_for_for_ever(void **state)
{
	struct server *server = *state;
	uint64_t begin = clock_now_usec();

	assert_int_equal(read_from(server, answer_never), -ETIMEDOUT);
	assert_true(clock_now_usec() - begin < SOON);
}

static void no_server_is_an_error(void **state)
{
	struct server *server = *state;
	const struct dirty_source source = {
		.socket = "/nonexistent/nbd", .export = "e", .bitmap = "b", .size_bytes = SIZE};

	assert_true(dirty_nbd_read(&source, take, server, &server->fault) < 0);
	assert_non_null(strstr(server->fault.params[0], "/nonexistent/nbd"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(neighbours_become_one_across_replies),
		TEST(what_is_beyond_the_disk_is_cut),
		TEST(a_clean_bitmap_has_no_extents),
		TEST(a_bitmap_that_is_not_offered_is_an_error),
		TEST(another_bitmap_is_not_ours),
		TEST(an_empty_extent_is_an_error),
		TEST(an_extent_that_is_not_of_sectors_is_an_error),
		TEST(a_torn_reply_is_an_error),
		TEST(garbage_is_an_error),
		TEST(silence_is_not_waited_for_for_ever),
		TEST(no_server_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
