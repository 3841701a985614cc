/* SPDX-License-Identifier: Apache-2.0 */
/* The copier when something fails, against a real tgtd that is killed, frozen or fenced. Flushes
 * pass through __wrap_endpoint_flush, which can make them fail. */
#include "agent/copy/copier.h"

#include "agent/copy/digest.h"
#include "base/clock.h"
#include "tests/lib/check.h"
#include "tests/lib/copy_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* What the wrapped flush does; the tests' threads are joined before it is read. */
static struct {
	struct copy_fixture *watched; /* NULL: no accounting */
	atomic_int fail_from;         /* flushes from this one on fail; 0: none */
	atomic_int n;                 /* flushes seen */
	_Atomic uint64_t log_before;  /* bytes in the log at the first flush */
} flushes;

int __real_endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault);
int __wrap_endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault);

int __wrap_endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault)
{
	int n = atomic_fetch_add(&flushes.n, 1) + 1;
	int fail_from = atomic_load(&flushes.fail_from);

	if (n == 1 && flushes.watched) {
		uint64_t bytes = 0, rows = 0;
		if (extent_log_total(flushes.watched->db, M, 0, &bytes, &rows, fault) == 0)
			atomic_store(&flushes.log_before, bytes);
	}
	if (fail_from && n >= fail_from)
		return fault_text(fault, -EIO, "injected failure of a flush");
	return __real_endpoint_flush(endpoint, cancel, fault);
}

static int setup(void **state)
{
	int r = copy_fixture_setup(state);

	flushes.watched = *state;
	atomic_store(&flushes.fail_from, 0);
	atomic_store(&flushes.n, 0);
	return r;
}

/* --- Failures --------------------------------------------------------------------------------- */

struct runner {
	struct copy_fixture *f;
	pthread_t thread;
	struct fault fault;
	int result;
	uint64_t ended_usec;
};

static void *run_copy(void *arg)
{
	struct runner *runner = arg;

	runner->result = copy_run(&runner->f->params, &runner->fault);
	runner->ended_usec = clock_now_usec();
	return NULL;
}

static void start_copy(struct runner *runner, struct copy_fixture *f)
{
	*runner = (struct runner){.f = f};
	assert_int_equal(pthread_create(&runner->thread, NULL, run_copy, runner), 0);
}

static int join_copy(struct runner *runner)
{
	pthread_join(runner->thread, NULL);
	return runner->result;
}

static void wait_until_sent(struct copy_fixture *f, uint64_t bytes)
{
	uint64_t deadline = clock_deadline(20 * USEC_PER_SEC);

	while (atomic_load(&f->progress.sent) < bytes) {
		assert_true(clock_now_usec() < deadline);
		cancel_sleep(NULL, 2 * USEC_PER_MSEC);
	}
}

static void a_killed_target_costs_only_what_was_not_flushed(void **state)
{
	struct copy_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(40 * MIB);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct runner runner;
	uint64_t size = 160 * MIB;

	copy_fixture_begin(f, size);
	copy_fixture_fill(f->source, 0, size, 13);
	f->params.rate = rate;
	start_copy(&runner, f);
	/* A checkpoint is due after 2 s: 80 MiB and more are flushed. */
	wait_until_sent(f, 110 * MIB);
	lun_kill(&f->lun);
	assert_int_equal(join_copy(&runner), -ECONNRESET);
	fault_clear(&runner.fault);
	uint64_t left = copy_fixture_log_bytes(f), sent = f->progress.sent;
	assert_true(left >= size - sent);
	assert_true(left <= size - 60 * MIB);

	lun_restart(&f->lun, "m1-0-2", true);
	assert_int_equal(copy_run(&f->params, &fault), -ESTALE);
	fault_clear(&fault);
	assert_int_equal(copy_fixture_log_bytes(f), left);
	f->params.target = lun_spec(&f->lun, "m1-0-2");
	f->params.rate = NULL;
	check_ok(&fault, copy_run(&f->params, &fault));
	copy_fixture_check(f);
	assert_int_equal(f->progress.sent - sent, left);
	assert_int_equal(f->progress.log_initial, size);
	assert_int_equal(f->progress.log_done, size);
}

static void cancel_takes_less_than_a_second_while_the_target_is_frozen(void **state)
{
	struct copy_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(100 * MIB);
	struct runner runner;

	copy_fixture_begin(f, 128 * MIB);
	copy_fixture_fill(f->source, 0, 128 * MIB, 14);
	f->params.rate = rate;
	start_copy(&runner, f);
	wait_until_sent(f, 8 * MIB);
	lun_signal(&f->lun, SIGSTOP);
	rate_limit_set(rate, 0);
	cancel_sleep(NULL, 300 * USEC_PER_MSEC);
	uint64_t before = clock_now_usec();
	cancel_request(f->cancel, "enough");
	assert_int_equal(join_copy(&runner), -ECANCELED);
	assert_true(runner.ended_usec - before < USEC_PER_SEC);
	assert_non_null(strstr(runner.fault.params[0], "enough"));
	fault_clear(&runner.fault);
	assert_true(copy_fixture_log_bytes(f) >= 128 * MIB - f->progress.log_done);
}

static void a_frozen_target_times_out(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	copy_fixture_begin(f, 32 * MIB);
	copy_fixture_fill(f->source, 0, 32 * MIB, 15);
	f->params.target.timeout_usec = 500 * USEC_PER_MSEC;
	lun_signal(&f->lun, SIGSTOP);
	assert_int_equal(copy_run(&f->params, &fault), -ETIMEDOUT);
	assert_int_equal(copy_fixture_log_bytes(f), 32 * MIB);
}

static void a_source_that_shrinks_is_an_error_with_its_name(void **state)
{
	struct copy_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(40 * MIB);
	struct runner runner;

	copy_fixture_begin(f, 64 * MIB);
	copy_fixture_fill(f->source, 0, 64 * MIB, 16);
	f->params.rate = rate;
	start_copy(&runner, f);
	wait_until_sent(f, 8 * MIB);
	assert_int_equal(truncate(f->source, 40 * MIB), 0);
	assert_int_equal(join_copy(&runner), -EIO);
	assert_non_null(strstr(runner.fault.params[0], f->source));
	assert_non_null(strstr(runner.fault.params[0], "read of"));
	fault_clear(&runner.fault);
	assert_true(copy_fixture_log_bytes(f) >= 24 * MIB);
}

static void a_target_that_refuses_writes_is_a_remote_error(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	copy_fixture_begin(f, 8 * MIB);
	copy_fixture_fill(f->source, 0, 8 * MIB, 17);
	lun_set_read_only(&f->lun);
	assert_int_equal(copy_run(&f->params, &fault), -EREMOTEIO);
	assert_non_null(strstr(fault.params[0], "07/27/00"));
	assert_int_equal(copy_fixture_log_bytes(f), 8 * MIB);
}

static void a_target_of_another_size_is_refused(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	copy_fixture_begin(f, 8 * MIB);
	copy_fixture_fill(f->source, 0, 8 * MIB, 18);
	f->params.target.size_bytes = 4 * MIB;
	assert_int_equal(copy_run(&f->params, &fault), -ESTALE);
	f->params.target = (struct endpoint_spec){
		.kind = ENDPOINT_NULL, .writable = true, .size_bytes = 4 * MIB};
	assert_int_equal(copy_run(&f->params, &fault), -EINVAL);
	assert_int_equal(copy_fixture_log_bytes(f), 8 * MIB);
}

/* --- Law 4 ------------------------------------------------------------------------------------ */

static void nothing_leaves_the_log_when_the_flush_fails(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char digests[DIGEST_SPAN_BYTES];

	copy_fixture_begin(f, 32 * MIB);
	copy_fixture_fill(f->source, 0, 32 * MIB, 18);
	atomic_store(&flushes.fail_from, 1);
	assert_int_equal(copy_run(&f->params, &fault), -EREMOTEIO);
	assert_non_null(strstr(fault.params[0], "injected"));
	assert_int_equal(f->progress.sent, 32 * MIB);
	assert_int_equal(f->progress.log_done, 0);
	assert_int_equal(copy_fixture_log_bytes(f), 32 * MIB);
	assert_int_equal(digest_load(f->db, M, 0, 0, digests, sizeof(digests), &fault), 0);
	atomic_store(&flushes.fail_from, 0);
	fault_clear(&fault);
	check_ok(&fault, copy_run(&f->params, &fault));
	copy_fixture_check(f);
}

static void the_log_shrinks_only_after_a_flush(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t size = 600 * MIB;

	copy_fixture_begin(f, size);
	copy_fixture_fill(f->source, 0, size, 19);
	/* The first checkpoint passes, the next one does not. */
	atomic_store(&flushes.fail_from, 2);
	assert_int_equal(copy_run(&f->params, &fault), -EREMOTEIO);
	assert_int_equal(atomic_load(&flushes.log_before), size);
	uint64_t left = copy_fixture_log_bytes(f);
	assert_int_equal(left + f->progress.log_done, size);
	assert_true(f->progress.log_done > 0 && left > 0);
	atomic_store(&flushes.fail_from, 0);
	fault_clear(&fault);
	uint64_t sent = f->progress.sent;
	check_ok(&fault, copy_run(&f->params, &fault));
	copy_fixture_check(f);
	assert_int_equal(f->progress.sent - sent, left);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, copy_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_killed_target_costs_only_what_was_not_flushed),
		TEST(cancel_takes_less_than_a_second_while_the_target_is_frozen),
		TEST(a_frozen_target_times_out),
		TEST(a_source_that_shrinks_is_an_error_with_its_name),
		TEST(a_target_that_refuses_writes_is_a_remote_error),
		TEST(a_target_of_another_size_is_refused),
		TEST(nothing_leaves_the_log_when_the_flush_fails),
		TEST(the_log_shrinks_only_after_a_flush),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
