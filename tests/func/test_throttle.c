/* SPDX-License-Identifier: Apache-2.0 */
/* Limits on a guest's writes, as a real QEMU has them. */
#include "tests/lib/bare_guest.h"

#include "agent/guest/throttle.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"

#define DISK_BYTES (UINT64_C(16) << 20)
#define MIB        (INT64_C(1) << 20)
#define DEVICE     "/machine/peripheral/vd%d/virtio-backend"

struct fixture {
	struct bare_guest bare;
	struct value *limits;
	struct fault fault;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const struct bare_guest_params params = {
		.n_disks = 2, .disk_bytes = DISK_BYTES, .is_paused = true};

	*state = f;
	bare_guest_start(&f->bare, &params);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	value_free(f->limits);
	bare_guest_clear(&f->bare);
	fault_clear(&f->fault);
	free(f);
	return 0;
}

static void read_limits(struct fixture *f)
{
	f->limits = value_free(f->limits);
	check_ok(&f->fault, throttle_read(f->bare.guest, &f->limits, &f->fault));
}

static int64_t limit_of(struct fixture *f, int disk, const char *name)
{
	char *device CLEANUP_FREE = xasprintf(DEVICE, disk);
	struct value *now CLEANUP_VALUE = NULL;

	check_ok(&f->fault, throttle_read(f->bare.guest, &now, &f->fault));
	assert_non_null(value_find(now, device));
	return value_find_int(value_find(now, device), name, 0);
}

/* As an operator would. */
static void set_by_hand(struct fixture *f, int disk, const char *more, int64_t bps, int64_t bps_wr)
{
	bare_guest_do(&f->bare, "block_set_io_throttle",
		"{\"id\": \"" DEVICE "\", \"bps\": %lld, \"bps_rd\": 0, \"bps_wr\": %lld,"
		"\"iops\": 0, \"iops_rd\": 0, \"iops_wr\": 700%s}",
		disk, (long long)bps, (long long)bps_wr, more);
}

static void set(struct fixture *f, int64_t bytes_per_sec)
{
	check_ok(&f->fault,
		throttle_set(f->bare.guest, f->limits, (uint64_t)bytes_per_sec, &f->fault));
}

static void check_restored(struct fixture *f)
{
	struct value *now CLEANUP_VALUE = NULL;

	check_ok(&f->fault, throttle_restore(f->bare.guest, f->limits, &f->fault));
	check_ok(&f->fault, throttle_read(f->bare.guest, &now, &f->fault));
	assert_true(value_equal(now, f->limits));
}

static void every_disk_is_slowed_and_freed(void **state)
{
	struct fixture *f = *state;

	read_limits(f);
	assert_int_equal(f->limits->record.n_members, 2);
	set(f, 5 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_wr"), 5 * MIB);
	assert_int_equal(limit_of(f, 1, "bps_wr"), 5 * MIB);
	assert_int_equal(limit_of(f, 1, "bps_rd"), 0);
	set(f, 2 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_wr"), 2 * MIB);
	check_restored(f);
}

static void writes_are_really_slowed(void **state)
{
	struct fixture *f = *state;

	read_limits(f);
	set(f, MIB);
	uint64_t begin = clock_now_usec();
	for (int i = 0; i < 8; i++)
		bare_guest_io(&f->bare, 0, "write -q -P 1 %dk 128k", i * 128);
	/* A second for that MiB, less what may come in advance. */
	assert_true(clock_now_usec() - begin > USEC_PER_SEC / 2);
	check_restored(f);
}

static void a_lower_limit_of_the_operators_stays(void **state)
{
	struct fixture *f = *state;

	set_by_hand(f, 0, "", 0, MIB);
	read_limits(f);
	set(f, 5 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_wr"), MIB);
	assert_int_equal(limit_of(f, 0, "iops_wr"), 700);
	assert_int_equal(limit_of(f, 1, "bps_wr"), 5 * MIB);
	check_restored(f);
}

static void a_burst_is_taken_away_and_given_back(void **state)
{
	struct fixture *f = *state;

	set_by_hand(f, 0, ", \"bps_wr_max\": 90000000, \"bps_wr_max_length\": 30", 0, 10 * MIB);
	read_limits(f);
	set(f, 5 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_wr"), 5 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_wr_max"), 0);
	check_restored(f);
	assert_int_equal(limit_of(f, 0, "bps_wr_max"), 90000000);
	assert_int_equal(limit_of(f, 0, "bps_wr_max_length"), 30);
}

/* QEMU takes no limit for both ways beside one for writes. */
static void a_limit_for_both_ways_is_parted(void **state)
{
	struct fixture *f = *state;

	set_by_hand(f, 0, ", \"bps_max\": 90000000", 8 * MIB, 0);
	read_limits(f);
	set(f, 5 * MIB);
	assert_int_equal(limit_of(f, 0, "bps"), 0);
	assert_int_equal(limit_of(f, 0, "bps_wr"), 5 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_rd"), 3 * MIB);
	set(f, 10 * MIB);
	assert_int_equal(limit_of(f, 0, "bps"), 8 * MIB);
	assert_int_equal(limit_of(f, 0, "bps_wr"), 0);
	check_restored(f);
}

static void a_stand_still_is_refused(void **state)
{
	struct fixture *f = *state;

	read_limits(f);
	assert_true(throttle_set(f->bare.guest, f->limits, 0, &f->fault) < 0);
	assert_int_equal(limit_of(f, 0, "bps_wr"), 0);
}

static void limits_survive_being_stored_as_json(void **state)
{
	struct fixture *f = *state;
	struct buf text CLEANUP_BUF = BUF_INIT;

	set_by_hand(f, 1, "", 0, MIB);
	read_limits(f);
	json_encode(f->limits, &text);
	f->limits = value_free(f->limits);
	check_ok(&f->fault, json_decode(text.data, text.length, NULL, &f->limits, &f->fault));
	set(f, MIB / 2);
	check_restored(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_disk_is_slowed_and_freed),
		TEST(writes_are_really_slowed),
		TEST(a_lower_limit_of_the_operators_stays),
		TEST(a_burst_is_taken_away_and_given_back),
		TEST(a_limit_for_both_ways_is_parted),
		TEST(a_stand_still_is_refused),
		TEST(limits_survive_being_stored_as_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
