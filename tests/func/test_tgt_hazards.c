/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer, or a bug, can do to tgtd, and that this never goes unnoticed: docs/target.md. */
#include "tests/lib/check.h"
#include "tests/lib/target_fixture.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "target/disk.h"
#include "target/tgt_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <iscsi/scsi-lowlevel.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* A second between two questions, 2 s each, two misses; and what two busy cores add. */
#define NOTICE_SECONDS 12
#define CHUNK          (256 * 1024)

static void add(struct fixture *fixture, uint32_t tid, struct export_identity *ret_identity)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_params params = fixture_export(fixture);

	check_ok(&fault, export_add(fixture->tgt, tid, &params, ret_identity, &fault));
}

static struct iscsi_context *log_in(struct fixture *fixture)
{
	char *portal CLEANUP_FREE = fixture_portal(fixture, "127.0.0.1");
	struct login login = fixture_login(portal);
	char error[512] = "";
	struct iscsi_context *iscsi = login_open(&login, error, sizeof(error));

	if (!iscsi)
		print_error("login: %s\n", error);
	return iscsi;
}

static void check_lost_and_dead(struct fixture *fixture, const char *word)
{
	pid_t pid = tgt_pid(fixture->tgt);

	assert_true(fixture_await_lost(fixture, NOTICE_SECONDS));
	if (!strstr(fixture->reason, word))
		print_error("reason: %s\n", fixture->reason);
	assert_non_null(strstr(fixture->reason, word));
	assert_true(tgt_is_lost(fixture->tgt));
	fixture->tgt = tgt_stop(fixture->tgt);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(fixture->n_lost, 1);
}

static void a_frozen_tgtd_is_killed_and_told(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGSTOP), 0);
	check_lost_and_dead(fixture, "hung");
}

static void a_short_freeze_is_survived(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;

	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGSTOP), 0);
	sleep(2);
	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGCONT), 0);
	sleep(2);
	assert_false(tgt_is_lost(fixture->tgt));
	add(fixture, 1, &identity);
	assert_int_equal(fixture->n_lost, 0);
}

static void a_frozen_tgtd_cannot_delay_a_stop(void **state)
{
	struct fixture *fixture = *state;
	pid_t pid = tgt_pid(fixture->tgt);
	uint64_t begin = clock_now_usec();

	assert_int_equal(kill(pid, SIGSTOP), 0);
	usleep(1500000);
	fixture->tgt = tgt_stop(fixture->tgt);
	assert_true(clock_now_usec() - begin < 4 * USEC_PER_SEC);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(fixture->n_lost, 0);
}

static void a_tgtd_that_does_not_obey_is_killed_by_withdraw(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;

	add(fixture, 1, &identity);
	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGSTOP), 0);
	uint64_t begin = clock_now_usec();
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	assert_true(clock_now_usec() - begin < 10 * USEC_PER_SEC);
	assert_true(tgt_is_dead(fixture->tgt));
	check_lost_and_dead(fixture, "killed");
	check_ok(&fault, export_settle(fixture->image, &identity, &fault));
}

static void ignore_task(
	struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	(void)iscsi;
	(void)status;
	(void)private_data;
	scsi_free_scsi_task(command_data);
}

/* A forwarder that stops reading what tgtd says. Its segments are small, so that what tgtd may
 * have under way is less than one PDU. */
struct stall {
	int listener;
	uint16_t port; /* of tgtd */
	pthread_t thread;
	int stalled;
	int stop;
};

static bool pump(int from, int to)
{
	char data[65536];
	ssize_t n = read(from, data, sizeof(data));

	return n > 0 && io_write_full(to, data, (size_t)n) == 0;
}

static void *stall_run(void *arg)
{
	struct stall *stall = arg;
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons(stall->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int client CLEANUP_CLOSE = accept4(stall->listener, NULL, NULL, SOCK_CLOEXEC);
	int target CLEANUP_CLOSE = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int segment = 536, buffer = 4096;

	setsockopt(target, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment));
	setsockopt(target, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
	if (connect(target, (struct sockaddr *)&address, sizeof(address)) < 0)
		return NULL;
	while (!__atomic_load_n(&stall->stop, __ATOMIC_RELAXED)) {
		bool stalled = __atomic_load_n(&stall->stalled, __ATOMIC_RELAXED);
		struct pollfd fds[] = {{client, POLLIN, 0}, {stalled ? -1 : target, POLLIN, 0}};
		if (poll(fds, 2, 50) < 0)
			break;
		if (fds[0].revents && !pump(client, target))
			break;
		if (fds[1].revents && !pump(target, client))
			break;
	}
	/* Kept open until the test has seen the end: closing would thaw tgtd. */
	while (!__atomic_load_n(&stall->stop, __ATOMIC_RELAXED))
		usleep(10000);
	return NULL;
}

static char *stall_start(struct stall *stall, struct fixture *fixture)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);

	*stall = (struct stall){.port = tgt_port(fixture->tgt)};
	stall->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(stall->listener, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(stall->listener, 1), 0);
	assert_int_equal(getsockname(stall->listener, (struct sockaddr *)&address, &length), 0);
	assert_int_equal(pthread_create(&stall->thread, NULL, stall_run, stall), 0);
	return xasprintf("127.0.0.1:%u", ntohs(address.sin_port));
}

static void stall_stop(struct stall *stall)
{
	__atomic_store_n(&stall->stop, 1, __ATOMIC_RELAXED);
	pthread_join(stall->thread, NULL);
	close(stall->listener);
}

/* tgtd 1.0.85 spins for as long as the peer's window is shut in the middle of a PDU. */
static void a_peer_that_stops_reading_costs_only_its_tgtd(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;
	struct stall stall;
	char error[512] = "";

	add(fixture, 1, &identity);
	char *portal CLEANUP_FREE = stall_start(&stall, fixture);
	struct login login = fixture_login(portal);
	struct iscsi_context *iscsi = login_open(&login, error, sizeof(error));
	assert_non_null(iscsi);
	__atomic_store_n(&stall.stalled, 1, __ATOMIC_RELAXED);
	iscsi_set_timeout(iscsi, 0);
	for (uint32_t i = 0; i < 8; i++)
		assert_non_null(iscsi_read16_task(
			iscsi, EXPORT_LUN, 0, MIB, DISK_SECTOR, 0, 0, 0, 0, 0, ignore_task, NULL));
	while (iscsi_which_events(iscsi) & POLLOUT)
		assert_int_equal(iscsi_service(iscsi, POLLOUT), 0);
	check_lost_and_dead(fixture, "hung");
	stall_stop(&stall);
	iscsi_destroy_context(iscsi);
}

#define FLOOD 1200 /* more than tgtd may have descriptors: MAX_FILES of target/tgt.c */

/* At its descriptor limit it spins and writes a million lines a second. */
static void a_flood_of_connections_and_messages_costs_only_its_tgtd(void **state)
{
	struct fixture *fixture = *state;
	char *path CLEANUP_FREE = xasprintf("%s/log", fixture->images);
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons(tgt_port(fixture->tgt)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct export_identity identity;
	static int fds[FLOOD];
	struct rlimit files;
	size_t n_lines = 0;
	struct buf text CLEANUP_BUF = BUF_INIT;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = MIN(files.rlim_max, 2 * FLOOD);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	/* The fixture's teardown removes the file. */
	add(fixture, 1, &identity);
	int log CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int before CLEANUP_CLOSE = dup(2);
	dup2(log, 2);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(fds[i], (struct sockaddr *)&address, sizeof(address));
	}
	uint64_t begin = clock_now_usec();
	bool told = fixture_await_lost(fixture, NOTICE_SECONDS);
	uint64_t seconds = (clock_now_usec() - begin) / USEC_PER_SEC + 2;
	dup2(before, 2);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	assert_true(told);
	assert_int_equal(io_read_file(path, 16 * MIB, &text), 0);
	for (const char *at = text.data; at && (at = strchr(at, '\n')); at++)
		n_lines++;
	print_message("%zu lines logged in %llu s\n", n_lines, (unsigned long long)seconds);
	assert_non_null(strstr(text.data, "lines_dropped="));
	assert_true(n_lines < 22 * seconds);
	check_lost_and_dead(fixture, "hung");
}

/* INQUIRY with an expected length of 4 GiB - 2 crashes 1.0.85. */
static void a_command_that_crashes_it_does_not_go_unnoticed(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;
	unsigned char cdb[6] = {0x12, 0, 0, 0, 255, 0};

	add(fixture, 1, &identity);
	struct iscsi_context *iscsi = log_in(fixture);
	assert_non_null(iscsi);
	struct scsi_task *task = scsi_create_task(6, cdb, SCSI_XFER_READ, -2);
	struct scsi_task *answer = iscsi_scsi_command_sync(iscsi, EXPORT_LUN, task, NULL);
	bool survived = answer && answer->status == SCSI_STATUS_GOOD;
	scsi_free_scsi_task(task);
	iscsi_destroy_context(iscsi);
	if (!survived)
		assert_true(fixture_await_lost(fixture, NOTICE_SECONDS));
	assert_int_equal(tgt_is_lost(fixture->tgt), !survived);
}

/* A writer in a thread of its own that writes at depth 8 until its session dies, each block filled
 * with a number that grows. */
struct writer {
	struct fixture *fixture;
	pthread_t thread;
	int ready;
	int stop;
	uint64_t n_done;
	uint64_t n_sent;
	int in_flight;
	bool failed;
	unsigned char data[CHUNK];
};

static void write_done(
	struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct writer *writer = private_data;

	(void)iscsi;
	scsi_free_scsi_task(command_data);
	writer->in_flight--;
	/* A peer that does not care for errors: only a lost session stops it. */
	if (status == SCSI_STATUS_CANCELLED || status == (int)SCSI_STATUS_ERROR)
		writer->failed = true;
	else
		__atomic_fetch_add(&writer->n_done, 1, __ATOMIC_RELAXED);
}

static void submit_writes(struct writer *writer, struct iscsi_context *iscsi)
{
	while (writer->in_flight < 8 && !writer->failed) {
		uint64_t n = writer->n_sent++;
		uint32_t lba = (uint32_t)(n % (SIZE / CHUNK) * (CHUNK / DISK_SECTOR));
		memset(writer->data, (int)(n / (SIZE / CHUNK)), 1);
		writer->in_flight++;
		if (!iscsi_write16_task(iscsi, EXPORT_LUN, lba, writer->data, CHUNK, DISK_SECTOR, 0,
			    0, 0, 0, 0, write_done, writer)) {
			writer->in_flight--;
			writer->failed = true;
		}
	}
}

static void *writer_run(void *arg)
{
	struct writer *writer = arg;
	struct iscsi_context *iscsi = log_in(writer->fixture);

	if (!iscsi)
		writer->failed = true;
	while (!writer->failed && !__atomic_load_n(&writer->stop, __ATOMIC_RELAXED)) {
		submit_writes(writer, iscsi);
		struct pollfd fd = {iscsi_get_fd(iscsi), (short)iscsi_which_events(iscsi), 0};
		if (poll(&fd, 1, 1000) < 0 || iscsi_service(iscsi, fd.revents) < 0)
			break;
		if (__atomic_load_n(&writer->n_done, __ATOMIC_RELAXED) > 100)
			__atomic_store_n(&writer->ready, 1, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&writer->ready, 1, __ATOMIC_RELEASE);
	if (iscsi)
		iscsi_destroy_context(iscsi);
	return NULL;
}

static void writer_start(struct writer *writer, struct fixture *fixture)
{
	memset(writer, 0, sizeof(*writer));
	writer->fixture = fixture;
	memset(writer->data, 0x5a, sizeof(writer->data));
	assert_int_equal(pthread_create(&writer->thread, NULL, writer_run, writer), 0);
	while (!__atomic_load_n(&writer->ready, __ATOMIC_ACQUIRE))
		usleep(1000);
	assert_true(__atomic_load_n(&writer->n_done, __ATOMIC_RELAXED) > 100);
}

static void writer_stop(struct writer *writer)
{
	__atomic_store_n(&writer->stop, 1, __ATOMIC_RELAXED);
	pthread_join(writer->thread, NULL);
}

static struct timespec modified(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mtim;
}

static void under_load_a_withdrawn_export_is_not_written_any_more(void **state)
{
	struct fixture *fixture = *state;
	struct writer *writer CLEANUP_FREE = xcalloc(1, sizeof(*writer));

	for (uint32_t tid = 1; tid <= 5; tid++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		struct buf before CLEANUP_BUF = BUF_INIT;
		struct buf after CLEANUP_BUF = BUF_INIT;
		struct export_identity identity;

		add(fixture, tid, &identity);
		writer_start(writer, fixture);
		uint64_t begin = clock_now_usec();
		check_ok(&fault, export_withdraw(fixture->tgt, tid, USER, &fault));
		uint64_t took = clock_now_usec() - begin;
		struct timespec then = modified(fixture->image);
		check_ok(&fault, export_settle(fixture->image, &identity, &fault));
		assert_int_equal(io_read_file(fixture->image, SIZE, &before), 0);
		usleep(200000);
		struct timespec now = modified(fixture->image);
		assert_int_equal(io_read_file(fixture->image, SIZE, &after), 0);
		writer_stop(writer);
		print_message("withdrawn in %llu us after %llu writes\n", (unsigned long long)took,
			(unsigned long long)writer->n_done);
		assert_memory_equal(before.data, after.data, SIZE);
		assert_memory_equal(&then, &now, sizeof(now));
		/* By obedience, not by the kill: the next export goes to the same tgtd. */
		assert_false(tgt_is_lost(fixture->tgt));
	}
}

static void a_kill_under_load_is_seen_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct writer *writer CLEANUP_FREE = xcalloc(1, sizeof(*writer));
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;

	add(fixture, 1, &identity);
	writer_start(writer, fixture);
	uint64_t begin = clock_now_usec();
	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGKILL), 0);
	assert_true(fixture_await_lost(fixture, 2));
	assert_true(clock_now_usec() - begin < 2 * USEC_PER_SEC);
	writer_stop(writer);
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	check_ok(&fault, export_settle(fixture->image, &identity, &fault));
	/* Nothing of it is left in the way of the next. */
	fixture->tgt = tgt_stop(fixture->tgt);
	check_ok(&fault, fixture_start(fixture, "127.0.0.1", &fault));
	add(fixture, 1, &identity);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_tgt, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_frozen_tgtd_is_killed_and_told),
		TEST(a_short_freeze_is_survived),
		TEST(a_frozen_tgtd_cannot_delay_a_stop),
		TEST(a_tgtd_that_does_not_obey_is_killed_by_withdraw),
		TEST(a_peer_that_stops_reading_costs_only_its_tgtd),
		TEST(a_flood_of_connections_and_messages_costs_only_its_tgtd),
		TEST(a_command_that_crashes_it_does_not_go_unnoticed),
		TEST(under_load_a_withdrawn_export_is_not_written_any_more),
		TEST(a_kill_under_load_is_seen_at_once),
	};

	if (access(TGTD, X_OK) < 0)
		return 77;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, fixture_drop_privileges, NULL);
}
