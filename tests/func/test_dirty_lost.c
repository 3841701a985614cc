/* SPDX-License-Identifier: Apache-2.0 */
/* What others do to a guest's QEMU while it is tracked: it is noticed, and nothing of ours stays.
 */
#include "tests/lib/dirty_fixture.h"

#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <signal.h>

/* Found out, or at least over, long before anybody loses patience. */
#define SOON_USEC (20 * USEC_PER_SEC)

static void start(struct dirty_fixture *f, size_t n_disks)
{
	dirty_fixture_start(f, n_disks, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 0 64k");
}

static void check_stale(struct dirty_fixture *f, int r, const char *word)
{
	assert_int_equal(r, -ESTALE);
	if (!strstr(f->fault.params[0], word))
		print_error("%s\n", f->fault.params[0]);
	assert_non_null(strstr(f->fault.params[0], word));
}

static void probe(struct dirty_fixture *f, enum dirty_state expected)
{
	enum dirty_state found = DIRTY_NONE;

	check_ok(&f->fault, dirty_probe(f->dirty, &found, &f->fault));
	assert_int_equal(found, expected);
}

static void remove_bitmap(struct dirty_fixture *f, const char *disk_and_generation)
{
	bare_guest_do(&f->bare, "block-dirty-bitmap-remove",
		"{\"node\": \"%.2s\", \"name\": \"ferry." JOB ".%s\"}", disk_and_generation,
		disk_and_generation);
}

static size_t count_text(struct dirty_fixture *f, const char *command, const char *needle)
{
	struct value *answer CLEANUP_VALUE = bare_guest_ask(&f->bare, command, NULL);
	struct buf text CLEANUP_BUF = BUF_INIT;
	size_t n = 0;

	json_encode(answer, &text);
	for (const char *at = text.data; (at = strstr(at, needle)); at++)
		n++;
	return n;
}

/* --- Bitmaps ------------------------------------------------------------------------------------
 */

static void a_bitmap_that_is_gone_is_noticed_by_all(void **state)
{
	struct dirty_fixture *f = *state;
	uint64_t bytes[2];

	start(f, 2);
	remove_bitmap(f, "d1.0");
	check_stale(f, dirty_check(f->dirty, &f->fault), "disk d1");
	check_stale(f, dirty_count(f->dirty, bytes, &f->fault), "disk d1");
	check_stale(f, dirty_freeze(f->dirty, &f->fault), "disk d1");
	probe(f, DIRTY_LOST);
	check_stale(f, dirty_start(f->dirty, &f->fault), "disk d1");
	/* It was for both or for none. */
	assert_int_equal(count_text(f, "query-named-block-nodes", JOB ".d0.1"), 0);
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
	probe(f, DIRTY_NONE);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
}

static void a_frozen_bitmap_that_is_gone_is_noticed(void **state)
{
	struct dirty_fixture *f = *state;

	start(f, 1);
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	remove_bitmap(f, "d0.0");
	check_stale(f, dirty_check(f->dirty, &f->fault), "somebody else");
	check_stale(f, dirty_acknowledge(f->dirty, &f->fault), "no longer known");
}

static void a_bitmap_that_no_longer_records_is_noticed(void **state)
{
	struct dirty_fixture *f = *state;

	start(f, 1);
	bare_guest_do(&f->bare, "block-dirty-bitmap-disable",
		"{\"node\": \"d0\", \"name\": \"ferry." JOB ".d0.0\"}");
	check_stale(f, dirty_check(f->dirty, &f->fault), "do not record");
	probe(f, DIRTY_LOST);
}

static void a_bitmap_of_another_granularity_is_not_ours(void **state)
{
	struct dirty_fixture *f = *state;

	dirty_fixture_start(f, 1, DISK_BYTES);
	bare_guest_do(&f->bare, "block-dirty-bitmap-add",
		"{\"node\": \"d0\", \"name\": \"ferry." JOB ".d0.0\", \"granularity\": 65536}");
	check_stale(f, dirty_start(f->dirty, &f->fault), "granularity");
}

/* --- Devices ------------------------------------------------------------------------------------
 */

static void a_snapshot_is_noticed(void **state)
{
	struct dirty_fixture *f = *state;

	start(f, 1);
	char *path CLEANUP_FREE = guest_file(f->bare.spec.run_dir, "overlay");
	bare_guest_do(&f->bare, "blockdev-snapshot-sync",
		"{\"node-name\": \"d0\", \"snapshot-file\": \"%s\", \"snapshot-node-name\": "
		"\"overlay\", \"format\": \"qcow2\"}",
		path);
	unlink(path);
	check_stale(f, dirty_check(f->dirty, &f->fault), "root node");
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
	assert_int_equal(count_text(f, "query-named-block-nodes", JOB), 0);
	/* Nor can tracking begin there. */
	check_stale(f, dirty_start(f->dirty, &f->fault), "root node");
}

static void a_block_job_is_noticed(void **state)
{
	struct dirty_fixture *f = *state;

	start(f, 1);
	bare_guest_do(&f->bare, "blockdev-add",
		"{\"driver\": \"null-co\", \"node-name\": \"other\", \"size\": %llu}",
		(unsigned long long)DISK_BYTES);
	bare_guest_do(&f->bare, "blockdev-backup",
		"{\"job-id\": \"nightly\", \"device\": \"d0\", \"target\": \"other\", \"sync\": "
		"\"full\", \"speed\": 1}");
	check_stale(f, dirty_check(f->dirty, &f->fault), "nightly");
}

static void a_resize_is_noticed(void **state)
{
	struct dirty_fixture *f = *state;

	start(f, 1);
	bare_guest_do(&f->bare, "block_resize", "{\"node-name\": \"d0\", \"size\": %llu}",
		(unsigned long long)DISK_BYTES * 2);
	check_stale(f, dirty_check(f->dirty, &f->fault), "size");
}

/* --- The NBD server -----------------------------------------------------------------------------
 */

static void a_foreign_nbd_server_is_left_alone(void **state)
{
	struct dirty_fixture *f = *state;

	dirty_fixture_start(f, 1, DISK_BYTES);
	char *path CLEANUP_FREE = guest_file(f->bare.spec.run_dir, "foreign");
	bare_guest_do(&f->bare, "nbd-server-start",
		"{\"addr\": {\"type\": \"unix\", \"data\": {\"path\": \"%s\"}}}", path);
	assert_int_equal(dirty_start(f->dirty, &f->fault), -EBUSY);
	assert_non_null(strstr(f->fault.params[0], "not ours"));
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(count_text(f, "query-named-block-nodes", JOB), 0);
	unlink(path);
}

static void an_export_that_a_dead_agent_left_is_ended(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	start(f, 1);
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(count_text(f, "query-block-exports", JOB), 1);
	bare_guest_find(&f->bare);
	dirty_fixture_open(f, 1, DISK_BYTES);
	probe(f, DIRTY_FROZEN);
	assert_int_equal(count_text(f, "query-block-exports", JOB), 0);
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.bytes, 64 << 10);
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
}

static void a_stop_leaves_nothing_and_can_be_repeated(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 2, DISK_BYTES);
	struct value *before CLEANUP_VALUE =
		bare_guest_ask(&f->bare, "query-named-block-nodes", NULL);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 1, &harvest);
	for (int i = 0; i < 2; i++) {
		check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
		struct value *after CLEANUP_VALUE =
			bare_guest_ask(&f->bare, "query-named-block-nodes", NULL);
		assert_true(value_equal(before, after));
		assert_int_equal(count_text(f, "query-block-exports", "id"), 0);
	}
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
}

static void two_jobs_do_not_meet(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	start(f, 1);
	struct dirty *other CLEANUP_DIRTY = dirty_fixture_new(f, JOB "-2", 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(other, &f->fault));
	check_ok(&f->fault, dirty_freeze(other, &f->fault));
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.bytes, 64 << 10);
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_check(other, &f->fault));
	memset(&harvest, 0, sizeof(harvest));
	check_ok(&f->fault, dirty_read(other, 0, dirty_fixture_take, &harvest, &f->fault));
	assert_int_equal(harvest.bytes, 0);
	check_ok(&f->fault, dirty_stop(other, &f->fault));
}

/* --- QEMU ends, or hangs ------------------------------------------------------------------------
 */

static void a_guest_that_is_gone_is_told_by_all(void **state)
{
	struct dirty_fixture *f = *state;
	enum dirty_state found;
	uint64_t bytes;

	start(f, 1);
	bare_guest_kill(&f->bare);
	assert_int_equal(dirty_probe(f->dirty, &found, &f->fault), -ECONNRESET);
	assert_int_equal(dirty_freeze(f->dirty, &f->fault), -ECONNRESET);
	assert_int_equal(dirty_count(f->dirty, &bytes, &f->fault), -ECONNRESET);
	assert_int_equal(dirty_check(f->dirty, &f->fault), -ECONNRESET);
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
}

struct blow {
	pid_t pid;
	int signal;
};

/* Two extents a request: the first of them comes while others are still to be asked for. */
static int strike(void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	struct blow *blow = arg;

	(void)extents;
	(void)n;
	(void)fault;
	if (blow->signal)
		kill(blow->pid, blow->signal);
	blow->signal = 0;
	return 0;
}

static int read_and_strike(struct dirty_fixture *f, int signal)
{
	struct blow blow = {.signal = signal};

	dirty_fixture_start(f, 1, UINT64_C(16) << 30);
	blow.pid = guest_pid(f->bare.guest);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 0 4k");
	bare_guest_io(&f->bare, 0, "write -q -P 1 1M 4k");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	uint64_t begin = clock_now_usec();
	int r = dirty_read(f->dirty, 0, strike, &blow, &f->fault);
	assert_int_equal(blow.signal, 0);
	assert_true(clock_now_usec() - begin < SOON_USEC);
	return r;
}

static void a_qemu_killed_while_it_is_read_is_told(void **state)
{
	struct dirty_fixture *f = *state;

	assert_int_equal(read_and_strike(f, SIGKILL), -ECONNRESET);
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
}

static void a_qemu_that_hangs_while_it_is_read_does_not_hang_us(void **state)
{
	struct dirty_fixture *f = *state;

	assert_int_equal(read_and_strike(f, SIGSTOP), -ETIMEDOUT);
	kill(guest_pid(f->bare.guest), SIGCONT);
	/* Nothing was lost. */
	struct harvest harvest;
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.bytes, 2 * BLOCK);
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
}

#define TEST(name)                                                                                 \
	cmocka_unit_test_setup_teardown(name, dirty_fixture_setup, dirty_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_bitmap_that_is_gone_is_noticed_by_all),
		TEST(a_frozen_bitmap_that_is_gone_is_noticed),
		TEST(a_bitmap_that_no_longer_records_is_noticed),
		TEST(a_bitmap_of_another_granularity_is_not_ours),
		TEST(a_snapshot_is_noticed),
		TEST(a_block_job_is_noticed),
		TEST(a_resize_is_noticed),
		TEST(a_foreign_nbd_server_is_left_alone),
		TEST(an_export_that_a_dead_agent_left_is_ended),
		TEST(a_stop_leaves_nothing_and_can_be_repeated),
		TEST(two_jobs_do_not_meet),
		TEST(a_guest_that_is_gone_is_told_by_all),
		TEST(a_qemu_killed_while_it_is_read_is_told),
		TEST(a_qemu_that_hangs_while_it_is_read_does_not_hang_us),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
