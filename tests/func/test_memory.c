/* SPDX-License-Identifier: Apache-2.0 */
/* The move of a guest's memory between two real QEMUs, and all ways in which it does not happen:
 * the guest must run on at the source. */
#include "tests/lib/bare_guest.h"

#include "agent/guest/memory.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <signal.h>

#define DISK_BYTES (UINT64_C(1) << 20)
/* Longer than anything takes on a loaded machine. */
#define WAIT_USEC (30 * USEC_PER_SEC)
/* So slow that it stays active: firmware leaves some MiB in memory. */
#define SLOW_BYTES UINT64_C(65536)
#define FAST_BYTES (UINT64_C(100) << 20)

#define UNTIL_SWITCHOVER (1U << MEMORY_NONE | 1U << MEMORY_ACTIVE)
#define UNTIL_END        (UNTIL_SWITCHOVER | 1U << MEMORY_PRE_SWITCHOVER | 1U << MEMORY_DEVICE)

struct fixture {
	struct bare_guest source;
	struct bare_guest destination;
	char *uri;
	struct guest_watch *watch; /* of the source */
	struct fault fault;
};

static void start_source(struct fixture *f)
{
	const struct bare_guest_params params = {.n_disks = 1, .disk_bytes = DISK_BYTES};

	bare_guest_start(&f->source, &params);
	f->watch = guest_watch_new(f->source.guest);
}

static void start_destination(struct fixture *f)
{
	const struct bare_guest_params params = {.source = &f->source};

	bare_guest_start(&f->destination, &params);
	f->uri = xasprintf("unix:%s/memory", f->destination.spec.run_dir);
	check_ok(&f->fault, memory_listen(f->destination.guest, f->uri, &f->fault));
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	*state = f;
	start_source(f);
	start_destination(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_watch_free(f->watch);
	bare_guest_clear(&f->destination);
	bare_guest_clear(&f->source);
	fault_clear(&f->fault);
	free(f->uri);
	free(f);
	return 0;
}

static void start_with(struct fixture *f, uint64_t bytes_per_sec, uint64_t downtime_usec)
{
	const struct memory_params params = {.uri = f->uri,
		.max_bytes_per_sec = bytes_per_sec,
		.downtime_limit_usec = downtime_usec};

	check_ok(&f->fault, memory_start(f->source.guest, &params, &f->fault));
}

static void start(struct fixture *f, uint64_t bytes_per_sec)
{
	start_with(f, bytes_per_sec, 100 * USEC_PER_MSEC);
}

static struct memory_progress await(struct fixture *f, unsigned while_status)
{
	struct memory_progress progress = {0};

	check_ok(&f->fault, memory_await(f->source.guest, f->watch, while_status, -1,
				    clock_deadline(WAIT_USEC), NULL, &progress, &f->fault));
	return progress;
}

static void move_to_switchover(struct fixture *f)
{
	start(f, FAST_BYTES);
	assert_int_equal(await(f, UNTIL_SWITCHOVER).status, MEMORY_PRE_SWITCHOVER);
	assert_false(bare_guest_is_running(&f->source));
}

static void the_memory_moves_and_the_guest_runs_there(void **state)
{
	struct fixture *f = *state;

	move_to_switchover(f);
	check_ok(&f->fault, memory_continue(f->source.guest, &f->fault));
	struct memory_progress progress = await(f, UNTIL_END);
	assert_int_equal(progress.status, MEMORY_COMPLETED);
	assert_true(progress.transferred_bytes > 0);
	assert_true(progress.total_bytes >= f->source.spec.memory_bytes);
	assert_true(progress.n_passes > 0);
	assert_string_equal(progress.error, "");
	assert_false(bare_guest_is_running(&f->source));
	/* It runs when it is told to, not before. */
	assert_false(bare_guest_is_running(&f->destination));
	check_ok(&f->fault, guest_unpause(f->destination.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->destination));
}

static void a_guest_that_arrived_can_still_run_here(void **state)
{
	struct fixture *f = *state;

	move_to_switchover(f);
	check_ok(&f->fault, memory_continue(f->source.guest, &f->fault));
	assert_int_equal(await(f, UNTIL_END).status, MEMORY_COMPLETED);
	bare_guest_kill(&f->destination);
	check_ok(&f->fault, guest_unpause(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
	/* What QEMU says of the move that it was taken back from is no obstacle to the next. */
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

static void a_cancel_while_it_is_active_is_not_felt(void **state)
{
	struct fixture *f = *state;
	struct memory_progress progress;

	start(f, SLOW_BYTES);
	check_ok(&f->fault, memory_query(f->source.guest, &progress, &f->fault));
	assert_int_equal(progress.status, MEMORY_ACTIVE);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	check_ok(&f->fault, memory_query(f->source.guest, &progress, &f->fault));
	/* QEMU 7.2 closes the stream before it notes that it was told to cancel: whoever sends may
	 * have failed by then. */
	assert_true(progress.status == MEMORY_CANCELLED || progress.status == MEMORY_FAILED);
	assert_true(bare_guest_is_running(&f->source));
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
}

static void a_cancel_at_the_switch_gives_the_guest_back(void **state)
{
	struct fixture *f = *state;

	move_to_switchover(f);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

static void after_a_cancel_it_can_move_again(void **state)
{
	struct fixture *f = *state;

	move_to_switchover(f);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	bare_guest_clear(&f->destination);
	free(f->uri);
	start_destination(f);
	move_to_switchover(f);
	check_ok(&f->fault, memory_continue(f->source.guest, &f->fault));
	assert_int_equal(await(f, UNTIL_END).status, MEMORY_COMPLETED);
}

static void a_cancel_of_nothing_is_fine(void **state)
{
	struct fixture *f = *state;

	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

static void a_paused_guest_stays_paused_and_can_be_unpaused(void **state)
{
	struct fixture *f = *state;

	check_ok(&f->fault, guest_pause(f->source.guest, &f->fault));
	move_to_switchover(f);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_false(bare_guest_is_running(&f->source));
	check_ok(&f->fault, guest_unpause(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

static void a_cancel_after_continue_is_refused(void **state)
{
	struct fixture *f = *state;

	move_to_switchover(f);
	check_ok(&f->fault, memory_continue(f->source.guest, &f->fault));
	assert_int_equal(memory_cancel(f->source.guest, &f->fault), -EBUSY);
	assert_non_null(strstr(f->fault.params[0], "both sides could run"));
	assert_int_equal(await(f, UNTIL_END).status, MEMORY_COMPLETED);
	assert_int_equal(memory_cancel(f->source.guest, &f->fault), -EBUSY);
	assert_false(bare_guest_is_running(&f->source));
}

static void a_destination_that_dies_does_not_stop_the_guest(void **state)
{
	struct fixture *f = *state;

	start(f, SLOW_BYTES);
	bare_guest_kill(&f->destination);
	struct memory_progress progress = await(f, UNTIL_END);
	assert_int_equal(progress.status, MEMORY_FAILED);
	assert_true(*progress.error);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

static void a_destination_that_died_at_the_switch_gives_the_guest_back(void **state)
{
	struct fixture *f = *state;

	move_to_switchover(f);
	bare_guest_kill(&f->destination);
	check_ok(&f->fault, memory_continue(f->source.guest, &f->fault));
	assert_int_equal(await(f, UNTIL_END).status, MEMORY_FAILED);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

static void nobody_listens_is_a_failure_and_no_more(void **state)
{
	struct fixture *f = *state;

	free(f->uri);
	f->uri = xstrdup("unix:/nonexistent/memory");
	start(f, FAST_BYTES);
	struct memory_progress progress = await(f, UNTIL_END);
	assert_int_equal(progress.status, MEMORY_FAILED);
	assert_true(*progress.error);
	assert_true(bare_guest_is_running(&f->source));
}

static void the_limit_can_be_raised_while_it_is_active(void **state)
{
	struct fixture *f = *state;

	start(f, SLOW_BYTES);
	check_ok(&f->fault, memory_set_limits(f->source.guest, FAST_BYTES, 100000, &f->fault));
	assert_int_equal(await(f, UNTIL_SWITCHOVER).status, MEMORY_PRE_SWITCHOVER);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
}

/* --- The other side hangs -----------------------------------------------------------------------
 */

/* It switches after its first tenth of a second, as nearly everything may be left to the pause:
 * more than a socket holds. QEMU's main loop hangs then. */
static void hang(struct fixture *f)
{
	struct memory_progress progress;

	start_with(f, SLOW_BYTES, 1000 * USEC_PER_SEC);
	assert_int_equal(await(f, UNTIL_SWITCHOVER).status, MEMORY_PRE_SWITCHOVER);
	assert_int_equal(kill(guest_pid(f->destination.guest), SIGSTOP), 0);
	check_ok(&f->fault, memory_continue(f->source.guest, &f->fault));
	assert_int_equal(memory_await(f->source.guest, f->watch, UNTIL_END, -1,
				 clock_deadline(2 * USEC_PER_SEC), NULL, &progress, &f->fault),
		-ETIMEDOUT);
	assert_int_equal(guest_command_until(f->source.guest, "query-status", NULL,
				 clock_deadline(USEC_PER_SEC), NULL, NULL, NULL),
		-ETIMEDOUT);
}

static void a_hung_destination_is_cut_by_yank(void **state)
{
	struct fixture *f = *state;

	hang(f);
	check_ok(&f->fault, memory_yank(f->source.guest, &f->fault));
	assert_int_equal(await(f, UNTIL_END).status, MEMORY_FAILED);
	check_ok(&f->fault, memory_cancel(f->source.guest, &f->fault));
	assert_true(bare_guest_is_running(&f->source));
}

/* QEMU stops to read its monitor at eight commands, whatever comes behind them. */
static void yank_is_heard_behind_many_commands(void **state)
{
	struct fixture *f = *state;

	hang(f);
	for (int i = 0; i < 12; i++)
		assert_int_equal(guest_command_until(f->source.guest, "query-status", NULL,
					 clock_deadline(USEC_PER_MSEC), NULL, NULL, NULL),
			-ETIMEDOUT);
	check_ok(&f->fault, memory_yank(f->source.guest, &f->fault));
	assert_int_equal(await(f, UNTIL_END).status, MEMORY_FAILED);
}

/* --- Waiting ------------------------------------------------------------------------------------
 */

static void a_wait_ends_at_its_deadline(void **state)
{
	struct fixture *f = *state;
	struct memory_progress progress;

	start(f, SLOW_BYTES);
	assert_int_equal(memory_await(f->source.guest, f->watch, UNTIL_END, -1,
				 clock_deadline(USEC_PER_SEC), NULL, &progress, &f->fault),
		-ETIMEDOUT);
	assert_int_equal(progress.status, MEMORY_ACTIVE);
	assert_non_null(strstr(f->fault.params[0], "\"active\""));
}

static void a_wait_ends_with_the_source(void **state)
{
	struct fixture *f = *state;
	struct memory_progress progress;

	start(f, SLOW_BYTES);
	bare_guest_kill(&f->source);
	assert_int_equal(memory_await(f->source.guest, f->watch, UNTIL_END, -1,
				 clock_deadline(WAIT_USEC), NULL, &progress, &f->fault),
		-ECONNRESET);
}

static void a_wait_sees_the_cancel_token(void **state)
{
	struct fixture *f = *state;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct memory_progress progress;

	start(f, SLOW_BYTES);
	cancel_request(cancel, "test");
	assert_int_equal(memory_await(f->source.guest, f->watch, UNTIL_END, -1,
				 clock_deadline(WAIT_USEC), cancel, &progress, &f->fault),
		-ECANCELED);
}

static void a_wait_is_woken(void **state)
{
	struct fixture *f = *state;
	struct cancel *bell CLEANUP_CANCEL = cancel_new();
	struct memory_progress progress;

	start(f, SLOW_BYTES);
	cancel_request(bell, "woken");
	check_ok(&f->fault, memory_await(f->source.guest, f->watch, UNTIL_END, cancel_fd(bell),
				    clock_deadline(WAIT_USEC), NULL, &progress, &f->fault));
	assert_int_equal(progress.status, MEMORY_ACTIVE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_memory_moves_and_the_guest_runs_there),
		TEST(a_guest_that_arrived_can_still_run_here),
		TEST(a_cancel_while_it_is_active_is_not_felt),
		TEST(a_cancel_at_the_switch_gives_the_guest_back),
		TEST(after_a_cancel_it_can_move_again),
		TEST(a_cancel_of_nothing_is_fine),
		TEST(a_paused_guest_stays_paused_and_can_be_unpaused),
		TEST(a_cancel_after_continue_is_refused),
		TEST(a_destination_that_dies_does_not_stop_the_guest),
		TEST(a_destination_that_died_at_the_switch_gives_the_guest_back),
		TEST(nobody_listens_is_a_failure_and_no_more),
		TEST(the_limit_can_be_raised_while_it_is_active),
		TEST(a_hung_destination_is_cut_by_yank),
		TEST(yank_is_heard_behind_many_commands),
		TEST(a_wait_ends_at_its_deadline),
		TEST(a_wait_ends_with_the_source),
		TEST(a_wait_sees_the_cancel_token),
		TEST(a_wait_is_woken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
