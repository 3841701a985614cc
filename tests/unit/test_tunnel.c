/* SPDX-License-Identifier: Apache-2.0 */
/* What passes through a link, and how it ends. */
#include "tests/lib/tunnel_fixture.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/stat.h>

#define MIB    ((size_t)1 << 20)
#define CHUNK  ((size_t)64 << 10)
#define CYCLES 200
/* What sockets and relays on the way may hold; a relay that stores without end passes it. */
#define MAX_UNDERWAY (48 * MIB)

/* --- Data that can be told apart at every byte --------------------------------------------------
 */

struct noise {
	uint64_t state;
};

static void make_noise(struct noise *noise, void *data, size_t length)
{
	uint64_t *words = data;

	for (size_t i = 0; i < length / sizeof(*words); i++) {
		noise->state ^= noise->state << 13;
		noise->state ^= noise->state >> 7;
		noise->state ^= noise->state << 17;
		words[i] = noise->state;
	}
}

struct writer {
	int fd;
	size_t length;
	uint64_t seed;
	pthread_t thread;
	bool has_failed;
};

static void *writer_main(void *arg)
{
	struct writer *writer = arg;
	struct noise noise = {writer->seed};
	char data[CHUNK];

	for (size_t at = 0; at < writer->length && !writer->has_failed; at += sizeof(data)) {
		make_noise(&noise, data, sizeof(data));
		for (size_t done = 0; done < sizeof(data) && !writer->has_failed;) {
			ssize_t n =
				send(writer->fd, data + done, sizeof(data) - done, MSG_NOSIGNAL);
			writer->has_failed = n <= 0;
			done += n > 0 ? (size_t)n : 0;
		}
	}
	if (!writer->has_failed)
		shutdown(writer->fd, SHUT_WR);
	return NULL;
}

static void start_writer(struct writer *writer)
{
	assert_int_equal(pthread_create(&writer->thread, NULL, writer_main, writer), 0);
}

/* Reads what a writer with that seed wrote, and its end. */
static void expect_noise(int fd, size_t length, uint64_t seed)
{
	struct noise noise = {seed};
	char expected[CHUNK], data[CHUNK];

	for (size_t at = 0; at < length; at += sizeof(data)) {
		make_noise(&noise, expected, sizeof(expected));
		assert_int_equal(recv(fd, data, sizeof(data), MSG_WAITALL), sizeof(data));
		assert_memory_equal(data, expected, sizeof(data));
	}
	assert_int_equal(read(fd, data, 1), 0);
}

/* --- Bytes --------------------------------------------------------------------------------------
 */

static void bytes_pass_both_ways_at_once(void **state)
{
	struct tunnel_fixture *fixture = *state;

	open_link(fixture);
	int near CLEANUP_CLOSE = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	struct writer up = {.fd = near, .length = 64 * MIB, .seed = 1};
	struct writer down = {.fd = far, .length = 16 * MIB, .seed = 2};
	start_writer(&up);
	start_writer(&down);
	expect_noise(far, up.length, up.seed);
	expect_noise(near, down.length, down.seed);
	pthread_join(up.thread, NULL);
	pthread_join(down.thread, NULL);
	assert_int_equal(tunnel_link_sent(fixture->link), up.length);
	await(tunnel_link_fd(fixture->link), POLLIN);
	assert_false(tunnel_link_is_broken(fixture->link));
}

static void an_end_leaves_the_other_direction_open(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char byte;

	open_link(fixture);
	int near CLEANUP_CLOSE = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	assert_int_equal(write(near, "a", 1), 1);
	shutdown(near, SHUT_WR);
	assert_int_equal(read(far, &byte, 1), 1);
	assert_int_equal(read(far, &byte, 1), 0);
	/* The answer comes after the question has ended. */
	struct writer down = {.fd = far, .length = MIB, .seed = 3};
	start_writer(&down);
	expect_noise(near, down.length, down.seed);
	pthread_join(down.thread, NULL);
	await(tunnel_link_fd(fixture->link), POLLIN);
	assert_false(tunnel_link_is_broken(fixture->link));
}

static void a_small_message_does_not_wait_for_more(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char byte;

	open_link(fixture);
	int near CLEANUP_CLOSE = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(write(near, "?", 1), 1);
		assert_int_equal(read(far, &byte, 1), 1);
		assert_int_equal(write(far, "!", 1), 1);
		assert_int_equal(read(near, &byte, 1), 1);
		assert_int_equal(byte, '!');
	}
}

static void the_far_side_may_speak_first(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char text[6] = "";

	open_link(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	assert_int_equal(write(far, "hello", 5), 5);
	int near CLEANUP_CLOSE = connect_near(fixture);
	assert_int_equal(recv(near, text, 5, MSG_WAITALL), 5);
	assert_string_equal(text, "hello");
}

/* What was said before the local side went away arrives, though nobody hears the answer. */
static void last_words_arrive(void **state)
{
	struct tunnel_fixture *fixture = *state;

	open_link(fixture);
	int near = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	struct writer up = {.fd = near, .length = MIB / 2, .seed = 4};
	assert_int_equal(write(far, "unread", 6), 6);
	start_writer(&up);
	pthread_join(up.thread, NULL);
	close(near);
	expect_noise(far, up.length, up.seed);
	close(TAKE_FD(far));
	await(tunnel_link_fd(fixture->link), POLLIN);
}

static void a_slow_reader_makes_the_writer_wait(void **state)
{
	struct tunnel_fixture *fixture = *state;
	static char data[CHUNK];
	struct noise noise = {5}; /* what can be packed takes less room on its way */
	size_t written = 0;

	open_link(fixture);
	int near = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	struct pollfd pollfd = {.fd = near, .events = POLLOUT};
	while (cancel_poll(NULL, &pollfd, 1, clock_deadline(USEC_PER_SEC / 2)) > 0) {
		make_noise(&noise, data, sizeof(data));
		ssize_t n = send(near, data, sizeof(data), MSG_DONTWAIT);
		assert_true(n > 0 || errno == EAGAIN);
		written += n > 0 ? (size_t)n : 0;
		assert_true(written < MAX_UNDERWAY);
	}
	close(near);
	assert_int_equal(read_to_end(far), written);
}

/* --- Ends ---------------------------------------------------------------------------------------
 */

static void closing_a_door_cuts_what_flows(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char data[4096];

	open_link(fixture);
	int near CLEANUP_CLOSE = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	struct writer up = {.fd = near, .length = SIZE_MAX / 2, .seed = 6};
	start_writer(&up);
	assert_int_equal(recv(far, data, sizeof(data), MSG_WAITALL), sizeof(data));
	tunnel_close_door(fixture->tunnel, DOOR);
	read_to_end(far);
	pthread_join(up.thread, NULL);
	assert_true(up.has_failed);
	await(tunnel_link_fd(fixture->link), POLLIN);
	assert_true(tunnel_link_is_broken(fixture->link));
}

static void closing_a_link_cuts_what_flows(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char data[4096];

	open_link(fixture);
	int near CLEANUP_CLOSE = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	struct writer down = {.fd = far, .length = SIZE_MAX / 2, .seed = 7};
	start_writer(&down);
	assert_int_equal(recv(near, data, sizeof(data), MSG_WAITALL), sizeof(data));
	fixture->link = tunnel_link_close(fixture->link);
	read_to_end(near);
	pthread_join(down.thread, NULL);
	assert_true(down.has_failed);
}

static void a_link_nobody_uses_sees_its_peer_go(void **state)
{
	struct tunnel_fixture *fixture = *state;

	open_link(fixture);
	assert_false(tunnel_link_is_broken(fixture->link));
	fixture->tunnel = tunnel_stop(fixture->tunnel);
	await(tunnel_link_fd(fixture->link), POLLIN);
	assert_true(tunnel_link_is_broken(fixture->link));
}

/* As at a paused guest: nothing flows, and the local side does not read. */
static void an_idle_link_sees_its_peer_go(void **state)
{
	struct tunnel_fixture *fixture = *state;

	open_link(fixture);
	int near CLEANUP_CLOSE = connect_near(fixture);
	int far CLEANUP_CLOSE = accept_far(fixture);
	fixture->tunnel = tunnel_stop(fixture->tunnel);
	await(tunnel_link_fd(fixture->link), POLLIN);
	assert_true(tunnel_link_is_broken(fixture->link));
	assert_int_equal(read_to_end(near), 0);
}

static void the_socket_is_private_and_goes_with_its_link(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct stat info;

	/* One of an earlier run, that nobody listens on any more. */
	close(listen_unix(fixture->near_path));
	open_link(fixture);
	assert_int_equal(lstat(fixture->near_path, &info), 0);
	assert_true(S_ISSOCK(info.st_mode));
	assert_int_equal(info.st_mode & 0777, 0600);
	int near CLEANUP_CLOSE = connect_near(fixture);
	fixture->link = tunnel_link_close(fixture->link);
	assert_int_equal(lstat(fixture->near_path, &info), -1);
}

static unsigned count_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void two_hundred_links_leave_nothing_open(void **state)
{
	struct tunnel_fixture *fixture = *state;
	unsigned before = 0;

	for (int i = 0; i <= CYCLES; i++) {
		open_link(fixture);
		int far CLEANUP_CLOSE = accept_far(fixture);
		if (i % 2)
			close(connect_near(fixture));
		fixture->link = tunnel_link_close(fixture->link);
		tunnel_close_door(fixture->tunnel, DOOR);
		open_door(fixture);
		/* The first made what is made once. */
		if (i == 0)
			before = count_files();
	}
	/* The tunnel forgets a visitor a little after his door was closed. */
	uint64_t deadline = clock_deadline(PATIENCE);
	while (count_files() > before && clock_now_usec() < deadline)
		cancel_sleep(NULL, USEC_PER_MSEC);
	assert_true(count_files() <= before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TUNNEL_TEST(bytes_pass_both_ways_at_once),
		TUNNEL_TEST(an_end_leaves_the_other_direction_open),
		TUNNEL_TEST(a_small_message_does_not_wait_for_more),
		TUNNEL_TEST(the_far_side_may_speak_first),
		TUNNEL_TEST(last_words_arrive),
		TUNNEL_TEST(a_slow_reader_makes_the_writer_wait),
		TUNNEL_TEST(closing_a_door_cuts_what_flows),
		TUNNEL_TEST(closing_a_link_cuts_what_flows),
		TUNNEL_TEST(a_link_nobody_uses_sees_its_peer_go),
		TUNNEL_TEST(an_idle_link_sees_its_peer_go),
		TUNNEL_TEST(the_socket_is_private_and_goes_with_its_link),
		TUNNEL_TEST(two_hundred_links_leave_nothing_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
