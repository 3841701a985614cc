/* SPDX-License-Identifier: Apache-2.0 */
/* A pass when something fails, against a real tgtd that is killed, frozen or fenced, and a receiver
 * that says that content differs. Flushes pass through __wrap_endpoint_flush, which can make them
 * fail. */
#include "agent/copy/pass.h"

#include "agent/copy/digest.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/check.h"
#include "tests/lib/pass_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_bool fail_flush;

int __real_endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault);
int __wrap_endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault);

int __wrap_endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault)
{
	if (atomic_load(&fail_flush))
		return fault_text(fault, -EIO, "injected failure of a flush");
	return __real_endpoint_flush(endpoint, cancel, fault);
}

static int setup(void **state)
{
	atomic_store(&fail_flush, false);
	return pass_fixture_setup(state);
}

/* The round must fail so; *ret_fault says why. The log is as long as before. */
static void expect_failure(struct pass_fixture *f, struct pass *pass, int error, const char *text)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t before = copy_fixture_log_bytes(f->copy);

	pass_begin(pass);
	assert_int_equal(pass_await(pass, NULL, &fault), error);
	assert_non_null(strstr(fault.params[0], text));
	assert_int_equal(copy_fixture_log_bytes(f->copy), before);
	/* It stays so. */
	fault_clear(&fault);
	pass_begin(pass);
	assert_int_equal(pass_await(pass, NULL, &fault), error);
	assert_non_null(strstr(fault.params[0], text));
}

/* A pass that is made anew, to a LUN that is what it was, finishes what was begun. */
static void finish_anew(struct pass_fixture *f)
{
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);

	pass_fixture_round(pass);
	pass_fixture_check(f);
}

static void wait_until_sent(struct pass_fixture *f, uint64_t bytes)
{
	uint64_t deadline = clock_deadline(20 * USEC_PER_SEC);

	while (atomic_load(&f->copy->progress.sent) < bytes) {
		assert_true(clock_now_usec() < deadline);
		cancel_sleep(NULL, 2 * USEC_PER_MSEC);
	}
}

/* --- Differences ------------------------------------------------------------------------------ */

static void a_difference_is_sent_again(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 16 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	for (unsigned i = 0; i < 50; i++)
		pass_fixture_write(f, i * 100 * KIB, 4096, i + 1);
	pass_fixture_write(f, 8 * MIB, MIB, 1);
	f->lie_from = 100 * KIB;
	f->lie_to = 300 * KIB;
	f->n_lies = 3; /* Both once, the first twice. */
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(f->n_compares, 3);
	assert_int_equal(f->n_compared, 50 + 4 + 2 + 1);
	assert_int_equal(result.n_extents, 50 + 4);
	assert_int_equal(result.sent_bytes, 50 * 4096 + MIB + 3 * 4096);
}

static void swap_data_and_hole(struct pass_fixture *f)
{
	int fd CLEANUP_CLOSE = open(f->copy->source, O_WRONLY | O_CLOEXEC);

	if (f->n_compares > 1)
		return;
	(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)MIB);
	copy_fixture_fill(f->copy->source, 2 * MIB, MIB, 3);
}

/* The guest goes on writing: what is sent again is what is there then. */
static void what_changed_meanwhile_is_sent_again_whole(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, MIB, 1);
	pass_fixture_discard(f, 2 * MIB, MIB);
	copy_fixture_fill(f->copy->lun.path, 2 * MIB, MIB, 2);
	f->before_compare = swap_data_and_hole;
	f->lie_to = 4 * MIB;
	f->n_lies = 8;
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(result.sent_bytes, 2 * MIB);
	assert_int_equal(result.zero_bytes, 2 * MIB);
}

static void what_stays_different_is_an_error_with_its_place(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	pass_fixture_begin(f, 16 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	for (unsigned i = 0; i < 10; i++)
		pass_fixture_write(f, i * MIB, 4096, i + 1);
	f->lie_from = 3 * MIB;
	f->lie_to = 5 * MIB;
	f->n_lies = -1;
	pass_begin(pass);
	assert_int_equal(pass_await(pass, NULL, &fault), -EIO);
	assert_int_equal(f->n_compares, 3);
	assert_non_null(strstr(fault.params[0], "disk 0: 2 extents"));
	assert_non_null(strstr(fault.params[0], "4096 bytes at offset 3145728"));
	assert_int_equal(copy_fixture_log_bytes(f->copy), 2 * 4096);
	f->n_lies = 0;
	finish_anew(f);
}

static void a_comparison_that_fails_keeps_the_log(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, MIB, 1);
	f->compare_error = -EHOSTUNREACH;
	expect_failure(f, pass, -EHOSTUNREACH, "cannot be asked");
	f->compare_error = 0;
	finish_anew(f);
}

static void nothing_leaves_the_log_when_the_flush_fails(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, MIB, 1);
	atomic_store(&fail_flush, true);
	expect_failure(f, pass, -EREMOTEIO, "injected");
	assert_int_equal(f->n_compares, 0);
	atomic_store(&fail_flush, false);
	finish_anew(f);
}

/* --- Lost sessions ---------------------------------------------------------------------------- */

static void a_session_lost_in_a_round_leaves_the_rest_in_the_log(void **state)
{
	struct pass_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(8 * MIB);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass *again = NULL;

	pass_fixture_begin(f, 64 * MIB);
	f->params.rate = rate;
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 64 * MIB, 1);
	pass_begin(pass);
	wait_until_sent(f, 4 * MIB);
	lun_kill(&f->copy->lun);
	assert_int_equal(pass_await(pass, NULL, &fault), -ECONNRESET);
	assert_non_null(strstr(fault.params[0], "disk 0, target"));
	uint64_t left = copy_fixture_log_bytes(f->copy);
	assert_in_range(left, 64 * MIB - f->copy->progress.sent, 64 * MIB);

	fault_clear(&fault);
	assert_int_equal(pass_open(&f->params, &again, &fault), -ECONNREFUSED);
	lun_restart(&f->copy->lun, "m1-0-2", true);
	fault_clear(&fault);
	assert_int_equal(pass_open(&f->params, &again, &fault), -ESTALE);
	assert_int_equal(copy_fixture_log_bytes(f->copy), left);
	f->params.target = lun_spec(&f->copy->lun, "m1-0-2");
	f->params.rate = NULL;
	finish_anew(f);
}

static void kill_target(struct pass_fixture *f)
{
	lun_kill(&f->copy->lun);
}

static void a_session_lost_while_comparing_costs_the_rest_only(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	pass_fixture_begin(f, 160 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 160 * MIB, 1);
	f->before_compare = kill_target;
	pass_begin(pass);
	assert_int_equal(pass_await(pass, NULL, &fault), -ECONNRESET);
	assert_int_equal(f->n_compares, 1);
	assert_in_range(copy_fixture_log_bytes(f->copy), 96 * MIB, 160 * MIB - 1);
	f->before_compare = NULL;
	lun_restart(&f->copy->lun, SERIAL, true);
	finish_anew(f);
}

static void a_session_lost_between_rounds_fails_the_next(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, MIB, 1);
	pass_fixture_round(pass);
	lun_kill(&f->copy->lun);
	pass_fixture_write(f, MIB, MIB, 2);
	expect_failure(f, pass, -ECONNRESET, "disk 0, target");
	lun_restart(&f->copy->lun, SERIAL, true);
	finish_anew(f);
}

static void a_frozen_target_times_out(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	f->params.target.timeout_usec = 500 * USEC_PER_MSEC;
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, MIB, 1);
	lun_signal(&f->copy->lun, SIGSTOP);
	expect_failure(f, pass, -ETIMEDOUT, "disk 0, target");
}

static void a_target_that_refuses_writes_is_a_remote_error(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, MIB, 1);
	lun_set_read_only(&f->copy->lun);
	expect_failure(f, pass, -EREMOTEIO, "07/27/00");
}

/* --- The source and the log ------------------------------------------------------------------- */

static void a_source_that_shrinks_is_an_error_with_its_name(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 3 * MIB, MIB, 1);
	assert_int_equal(truncate(f->copy->source, 3 * MIB), 0);
	expect_failure(f, pass, -EIO, f->copy->source);
}

static void a_log_beyond_the_disk_is_refused(void **state)
{
	struct pass_fixture *f = *state;
	struct extent beyond = {4 * MIB - 512, 1024};

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	copy_fixture_log_add(f->copy, &beyond, 1);
	expect_failure(f, pass, -EINVAL, "1024 bytes at 4193792");
}

static void sizes_that_differ_are_refused(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass *pass = NULL;

	pass_fixture_begin(f, 4 * MIB);
	f->params.target = (struct endpoint_spec){
		.kind = ENDPOINT_NULL, .writable = true, .size_bytes = 2 * MIB};
	assert_int_equal(pass_open(&f->params, &pass, &fault), -EINVAL);
	fault_clear(&fault);
	f->params.source.path = "/nonexistent/disk";
	assert_int_equal(pass_open(&f->params, &pass, &fault), -EIO);
	assert_non_null(strstr(fault.params[0], "/nonexistent/disk"));
}

/* --- Cancel and close ------------------------------------------------------------------------- */

static void cancel_takes_less_than_a_second_while_the_target_is_frozen(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	pass_fixture_begin(f, 64 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 64 * MIB, 1);
	lun_signal(&f->copy->lun, SIGSTOP);
	pass_begin(pass);
	cancel_sleep(NULL, 200 * USEC_PER_MSEC);
	uint64_t before = clock_now_usec();
	cancel_request(f->copy->cancel, "enough");
	assert_int_equal(pass_await(pass, NULL, &fault), -ECANCELED);
	assert_true(clock_now_usec() - before < USEC_PER_SEC);
	assert_non_null(strstr(fault.params[0], "enough"));
	assert_int_equal(copy_fixture_log_bytes(f->copy), 64 * MIB);
	fault_clear(&fault);
	assert_int_equal(pass_await(pass, NULL, &fault), -ECANCELED);
	pass_begin_flush(pass);
	assert_int_equal(pass_await(pass, NULL, NULL), -ECANCELED);
}

static void a_round_over_its_deadline_is_waited_for_no_longer(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	pass_fixture_begin(f, 64 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 64 * MIB, 1);
	lun_signal(&f->copy->lun, SIGSTOP);
	pass_begin(pass);
	uint64_t deadline = clock_deadline(200 * USEC_PER_MSEC);
	assert_int_equal(pass_await_until(pass, deadline, NULL, &fault), -ETIMEDOUT);
	assert_true(clock_now_usec() >= deadline);
	assert_int_equal(copy_fixture_log_bytes(f->copy), 64 * MIB);
	/* It is stopped meanwhile. */
	assert_int_equal(pass_await(pass, NULL, NULL), -ECANCELED);
}

static void cancel_ends_the_wait_for_the_rate(void **state)
{
	struct pass_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(1000);

	pass_fixture_begin(f, 16 * MIB);
	f->params.rate = rate;
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 16 * MIB, 1);
	pass_begin(pass);
	cancel_request(f->copy->cancel, "enough");
	uint64_t before = clock_now_usec();
	assert_int_equal(pass_await(pass, NULL, NULL), -ECANCELED);
	assert_true(clock_now_usec() - before < USEC_PER_SEC);
}

static void a_pass_is_not_opened_after_a_cancel(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass *pass = NULL;

	pass_fixture_begin(f, MIB);
	lun_signal(&f->copy->lun, SIGSTOP);
	cancel_request(f->copy->cancel, "enough");
	assert_int_equal(pass_open(&f->params, &pass, &fault), -ECANCELED);
	assert_non_null(strstr(fault.params[0], "enough"));
}

static void a_round_that_nobody_awaits_ends_with_the_pass(void **state)
{
	struct pass_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(1000);

	pass_fixture_begin(f, 16 * MIB);
	f->params.rate = rate;
	struct pass *pass = pass_fixture_open(f);
	pass_fixture_write(f, 0, 16 * MIB, 1);
	pass_begin(pass);
	uint64_t before = clock_now_usec();
	pass_close(pass);
	assert_true(clock_now_usec() - before < USEC_PER_SEC);
	assert_int_equal(copy_fixture_log_bytes(f->copy), 16 * MIB);
	f->params.rate = NULL;
	finish_anew(f);
}

/* --- Many at once ----------------------------------------------------------------------------- */

#define N_DISKS    16
#define DISK_BYTES (4 * MIB)

static int compare_any(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	const struct pass_fixture *f = arg;
	unsigned char *own CLEANUP_FREE = xcalloc(n, DIGEST_BYTES);
	int r = digest_file_extents(
		f->copy->lun.path, N_DISKS * DISK_BYTES, extents, n, NULL, own, fault);

	(void)disk;
	for (size_t i = 0; i < n; i++)
		ret_differs[i] = memcmp(own + i * DIGEST_BYTES, digests + i * DIGEST_BYTES,
					 DIGEST_BYTES) != 0;
	return r;
}

/* One LUN is sixteen disks side by side: each has a log and a session of its own. */
static void sixteen_passes_run_at_once(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass *passes[N_DISKS];

	pass_fixture_begin(f, N_DISKS * DISK_BYTES);
	f->params.compare = compare_any;
	for (unsigned disk = 0; disk < N_DISKS; disk++) {
		f->params.disk = disk;
		passes[disk] = pass_fixture_open(f);
	}
	for (uint32_t round = 0; round < 5; round++) {
		for (unsigned disk = 0; disk < N_DISKS; disk++) {
			for (unsigned i = 0; i < 20; i++) {
				struct extent extent = {
					disk * DISK_BYTES + (i + round) * 100 * KIB, 4096};
				copy_fixture_fill(f->copy->source, extent.offset, extent.length,
					disk * 1000 + i + round + 1);
				check_ok(&fault,
					extent_log_add(f->params.db, M, disk, &extent, 1, &fault));
			}
			pass_begin(passes[disk]);
		}
		for (unsigned disk = 0; disk < N_DISKS; disk++) {
			struct pass_result result;
			check_ok(&fault, pass_await(passes[disk], &result, &fault));
			assert_int_equal(result.sent_bytes, 20 * 4096);
		}
	}
	for (unsigned disk = 0; disk < N_DISKS; disk++)
		pass_close(passes[disk]);
	pass_fixture_check(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, pass_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_difference_is_sent_again),
		TEST(what_changed_meanwhile_is_sent_again_whole),
		TEST(what_stays_different_is_an_error_with_its_place),
		TEST(a_comparison_that_fails_keeps_the_log),
		TEST(nothing_leaves_the_log_when_the_flush_fails),
		TEST(a_session_lost_in_a_round_leaves_the_rest_in_the_log),
		TEST(a_session_lost_while_comparing_costs_the_rest_only),
		TEST(a_session_lost_between_rounds_fails_the_next),
		TEST(a_frozen_target_times_out),
		TEST(a_target_that_refuses_writes_is_a_remote_error),
		TEST(a_source_that_shrinks_is_an_error_with_its_name),
		TEST(a_log_beyond_the_disk_is_refused),
		TEST(sizes_that_differ_are_refused),
		TEST(cancel_takes_less_than_a_second_while_the_target_is_frozen),
		TEST(a_round_over_its_deadline_is_waited_for_no_longer),
		TEST(cancel_ends_the_wait_for_the_rate),
		TEST(a_pass_is_not_opened_after_a_cancel),
		TEST(a_round_that_nobody_awaits_ends_with_the_pass),
		TEST(sixteen_passes_run_at_once),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
