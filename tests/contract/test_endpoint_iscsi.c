/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/endpoint_contract.h"

#include "agent/copy/zero.h"
#include "base/clock.h"
#include "base/log.h"
#include "tests/lib/lun_door.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#define BLOCK  ((size_t)256 << 10)
#define N_MANY 16

static struct lun lun;
static struct lun_door door;
static bool in_tls; /* through a data port, and not straight to tgtd */
static struct contract contract = {.keeps_data = true};

static struct endpoint_spec spec_of(const char *serial)
{
	struct endpoint_spec spec = lun_spec(&lun, serial);

	if (!in_tls)
		return spec;
	lun_door_lead_to(&door, lun.port);
	return lun_door_spec(&door, spec);
}

static int begin(void **state, bool thin)
{
	lun_start(&lun, CONTRACT_BYTES, "m1-0-1", thin);
	contract.spec = spec_of("m1-0-1");
	*state = &contract;
	return 0;
}

static int setup(void **state)
{
	return begin(state, true);
}

static int setup_thick(void **state)
{
	return begin(state, false);
}

static int teardown(void **state)
{
	(void)state;
	lun_stop(&lun);
	return 0;
}

static int try_open(const struct endpoint_spec *spec, const char *expected_text)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	int r = endpoint_open(spec, NULL, &endpoint, &fault);

	if (r < 0 && expected_text && !strstr(fault.params[0], expected_text))
		fail_msg("\"%s\" does not say \"%s\"", fault.params[0], expected_text);
	return r;
}

/* Has to be the first session of the process. */
static void the_librarys_environment_is_cleared(void **state)
{
	struct sigaction action;

	(void)state;
	setenv("LIBISCSI_CHAP_USERNAME", "stranger", 1);
	setenv("LIBISCSI_CHAP_PASSWORD", "fedcba9876543210", 1);
	assert_int_equal(try_open(&contract.spec, NULL), 0);
	assert_null(getenv("LIBISCSI_CHAP_USERNAME"));
	assert_null(getenv("LIBISCSI_CHAP_PASSWORD"));
	assert_int_equal(sigaction(SIGPIPE, NULL, &action), 0);
	assert_true(action.sa_handler == SIG_IGN);
}

static void a_redirect_is_refused(void **state)
{
	(void)state;
	lun_set_redirect(&lun, "127.0.0.2", 3260);
	assert_int_equal(try_open(&contract.spec, "redirect"), -EACCES);
}

static void an_idle_session_answers_pings(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	char data[512] = {1};

	(void)state;
	check_ok(&fault, endpoint_open(&contract.spec, NULL, &endpoint, &fault));
	uint64_t until = clock_deadline(4500 * USEC_PER_MSEC);
	assert_int_equal(endpoint_wait(endpoint, -1, until, NULL), -ETIMEDOUT);
	struct counted write = counted_new(ENDPOINT_WRITE, 0, 512, data);
	assert_int_equal(counted_run(endpoint, &write), 0);
}

/* libiscsi 1.19 drops a session when a ping is answered while Data-Out PDUs are queued. */
static void pings_while_writing_do_not_end_the_session(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	void *data CLEANUP_FREE = calloc(1, ENDPOINT_MAX_BYTES);
	struct counted many[64] = {
		0}; /* far more than the sockets take: the queue is never empty */
	uint64_t until = clock_deadline(3 * USEC_PER_SEC);

	(void)state;
	lun_stop(&lun);
	lun_start(&lun, ARRAY_SIZE(many) * ENDPOINT_MAX_BYTES, "m1-0-1", true);
	struct endpoint_spec spec = spec_of("m1-0-1");
	check_ok(&fault, endpoint_open(&spec, NULL, &endpoint, &fault));
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i].n_ended = 1;
	while (clock_now_usec() < until) {
		for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
			if (!many[i].n_ended)
				continue;
			assert_int_equal(many[i].error, 0);
			many[i] = counted_new(
				ENDPOINT_WRITE, i * ENDPOINT_MAX_BYTES, ENDPOINT_MAX_BYTES, data);
			assert_int_equal(counted_submit(endpoint, &many[i]), 0);
		}
		assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, NULL), 0);
	}
}

/* tgtd keeps the length of an UNMAP in 32 bits. */
static void zeroing_more_than_four_gib_reaches_the_end(void **state)
{
	static const uint64_t places[] = {
		0, UINT64_C(1) << 30, UINT64_C(4) << 30, (UINT64_C(5) << 30) - 512};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	uint64_t size = UINT64_C(5) << 30;
	char data[512];

	(void)state;
	lun_stop(&lun);
	lun_start(&lun, size, "m1-0-1", true);
	struct endpoint_spec spec = spec_of("m1-0-1");
	check_ok(&fault, endpoint_open(&spec, NULL, &endpoint, &fault));
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		contract_fill(data, 512, (unsigned)i);
		struct counted write = counted_new(ENDPOINT_WRITE, places[i], 512, data);
		assert_int_equal(counted_run(endpoint, &write), 0);
	}
	struct counted zero = counted_new(ENDPOINT_ZERO, 0, size, NULL);
	assert_int_equal(counted_run(endpoint, &zero), 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct extent place = {places[i], 512};
		check_ok(&fault, endpoint_read(endpoint, place, data, NULL, &fault));
		assert_true(zero_is_all(data, 512));
	}
}

static void a_lun_that_is_not_the_expected_one_is_stale(void **state)
{
	struct endpoint_spec spec = contract.spec;

	(void)state;
	spec.serial = "m1-0-2";
	assert_int_equal(try_open(&spec, "m1-0-1"), -ESTALE);
	spec.serial = "m1-0-";
	assert_int_equal(try_open(&spec, "m1-0-1"), -ESTALE);
	spec = contract.spec;
	spec.size_bytes += 512;
	assert_int_equal(try_open(&spec, "capacity"), -ESTALE);
	assert_int_equal(try_open(&contract.spec, NULL), 0);
}

static void a_remade_lun_is_stale(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	struct counted write;
	char data[512] = {1};

	(void)state;
	check_ok(&fault, endpoint_open(&contract.spec, NULL, &endpoint, &fault));
	lun_restart(&lun, "m1-0-2", true);
	write = counted_new(ENDPOINT_WRITE, 0, 512, data);
	/* The old session must not come back by itself. */
	assert_int_equal(counted_run(endpoint, &write), -ECONNRESET);
	assert_int_equal(try_open(&contract.spec, "m1-0-2"), -ESTALE);
}

static void a_refused_login_says_so(void **state)
{
	struct endpoint_spec spec = contract.spec;

	(void)state;
	spec.secret = "fedcba9876543210";
	assert_int_equal(try_open(&spec, "refused the login"), -EACCES);
	spec = contract.spec;
	spec.initiator = "iqn.2026-01.test.ferry:stranger";
	assert_int_equal(try_open(&spec, "refused the login"), -EACCES);
	spec = contract.spec;
	spec.user = NULL;
	assert_int_equal(try_open(&spec, "refused the login"), -EACCES);
}

static void nobody_listening_is_connection_refused(void **state)
{
	(void)state;
	lun_kill(&lun);
	assert_int_equal(try_open(&contract.spec, "cannot connect"), -ECONNREFUSED);
}

static void two_sessions_of_one_initiator_live_together(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *a CLEANUP_ENDPOINT = NULL;
	struct endpoint *b CLEANUP_ENDPOINT = NULL;
	char data[512] = {1};

	(void)state;
	check_ok(&fault, endpoint_open(&contract.spec, NULL, &a, &fault));
	check_ok(&fault, endpoint_open(&contract.spec, NULL, &b, &fault));
	for (int i = 0; i < 3; i++) {
		struct counted write = counted_new(ENDPOINT_WRITE, 0, 512, data);
		assert_int_equal(counted_run(i % 2 ? b : a, &write), 0);
	}
}

/* Opens, freezes tgtd and submits writes of which none can end. */
static struct endpoint *stuck_endpoint(
	const struct endpoint_spec *spec, struct counted *many, void *data)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint = NULL;

	check_ok(&fault, endpoint_open(spec, NULL, &endpoint, &fault));
	lun_signal(&lun, SIGSTOP);
	for (size_t i = 0; i < N_MANY; i++) {
		many[i] = counted_new(ENDPOINT_WRITE, i * BLOCK, BLOCK, data);
		assert_int_equal(counted_submit(endpoint, &many[i]), 0);
	}
	return endpoint;
}

static void check_all_ended(const struct counted *many, int error)
{
	for (size_t i = 0; i < N_MANY; i++) {
		assert_int_equal(many[i].n_ended, 1);
		assert_int_equal(many[i].error, error);
	}
}

static void a_frozen_target_times_out_all(void **state)
{
	struct endpoint_spec spec = contract.spec;
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];

	(void)state;
	spec.timeout_usec = 700 * USEC_PER_MSEC;
	struct endpoint *endpoint CLEANUP_ENDPOINT = stuck_endpoint(&spec, many, data);
	uint64_t before = clock_now_usec();
	assert_int_equal(
		endpoint_service(endpoint, before + 200 * USEC_PER_MSEC, NULL), -ETIMEDOUT);
	assert_int_equal(endpoint_in_flight(endpoint), N_MANY);
	assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, NULL), 0);
	assert_in_range(clock_now_usec() - before, 400 * USEC_PER_MSEC, 2 * USEC_PER_SEC);
	check_all_ended(many, -ETIMEDOUT);
	struct counted late = counted_new(ENDPOINT_WRITE, 0, 512, data);
	assert_int_equal(counted_submit(endpoint, &late), -ETIMEDOUT);
}

static void cancel_ends_the_wait_for_a_frozen_target(void **state)
{
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];

	(void)state;
	struct endpoint *endpoint = stuck_endpoint(&contract.spec, many, data);
	cancel_request(cancel, "enough");
	assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, cancel), -ECANCELED);
	uint64_t before = clock_now_usec();
	endpoint_close(endpoint);
	assert_true(clock_now_usec() - before < USEC_PER_SEC);
	check_all_ended(many, -ECANCELED);
}

static void opening_a_frozen_target_times_out_or_is_cancelled(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	struct endpoint_spec spec = contract.spec;

	(void)state;
	lun_signal(&lun, SIGSTOP);
	spec.timeout_usec = 300 * USEC_PER_MSEC;
	assert_int_equal(try_open(&spec, "no answer"), -ETIMEDOUT);
	cancel_request(cancel, "enough");
	assert_int_equal(endpoint_open(&contract.spec, cancel, &endpoint, &fault), -ECANCELED);
}

static unsigned n_nudges;

struct iscsi_context;
typedef void (*iscsi_callback)(struct iscsi_context *context, int status, void *data, void *arg);
int __real_iscsi_nop_out_async(struct iscsi_context *context, iscsi_callback callback,
	unsigned char *data, int length, void *arg);
int __wrap_iscsi_nop_out_async(struct iscsi_context *context, iscsi_callback callback,
	unsigned char *data, int length, void *arg);

int __wrap_iscsi_nop_out_async(struct iscsi_context *context, iscsi_callback callback,
	unsigned char *data, int length, void *arg)
{
	n_nudges++;
	return __real_iscsi_nop_out_async(context, callback, data, length, arg);
}

static void a_target_that_keeps_silent_is_nudged(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	unsigned char data[4096] = {1}, read[4096];
	struct extent place = {0, sizeof(data)};

	(void)state;
	check_ok(&fault, endpoint_open(&contract.spec, NULL, &endpoint, &fault));
	n_nudges = 0;
	lun_signal(&lun, SIGSTOP);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			endpoint_wait(endpoint, -1, clock_deadline(50000), NULL), -ETIMEDOUT);
	assert_int_equal(n_nudges, 0); /* Nothing is asked of it. */
	struct counted write = counted_new(ENDPOINT_WRITE, 0, sizeof(data), data);
	assert_int_equal(counted_submit(endpoint, &write), 0);
	assert_int_equal(endpoint_service(endpoint, clock_deadline(700000), NULL), -ETIMEDOUT);
	assert_int_equal(endpoint_service(endpoint, clock_deadline(50000), NULL), -ETIMEDOUT);
	/* Not only once, as its answer may be held back like the others: after 5 ms, 15, 35, 75,
	 * 155, 315, 635. */
	assert_in_range(n_nudges, 2, 7);
	lun_signal(&lun, SIGCONT);
	while (!write.n_ended)
		assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, NULL), 0);
	assert_int_equal(write.error, 0);
	check_ok(&fault, endpoint_read(endpoint, place, read, NULL, &fault));
	assert_memory_equal(read, data, sizeof(data));
}

static void a_killed_target_resets_all(void **state)
{
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];

	(void)state;
	struct endpoint *endpoint CLEANUP_ENDPOINT = stuck_endpoint(&contract.spec, many, data);
	lun_kill(&lun);
	while (endpoint_in_flight(endpoint))
		assert_int_equal(
			endpoint_service(endpoint, clock_deadline(5 * USEC_PER_SEC), NULL), 0);
	check_all_ended(many, -ECONNRESET);
	assert_int_equal(endpoint_wait(endpoint, -1, USEC_FOREVER, NULL), -ECONNRESET);
}

static void a_target_lost_while_idle_is_noticed(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;

	(void)state;
	check_ok(&fault, endpoint_open(&contract.spec, NULL, &endpoint, &fault));
	lun_kill(&lun);
	assert_int_equal(
		endpoint_wait(endpoint, -1, clock_deadline(5 * USEC_PER_SEC), NULL), -ECONNRESET);
}

#define OWN_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		OWN_TEST(the_librarys_environment_is_cleared),
		CONTRACT_TESTS,
		cmocka_unit_test_setup_teardown(
			contract_what_was_zeroed_reads_as_zeros, setup_thick, teardown),
		OWN_TEST(a_redirect_is_refused),
		OWN_TEST(an_idle_session_answers_pings),
		OWN_TEST(pings_while_writing_do_not_end_the_session),
		OWN_TEST(zeroing_more_than_four_gib_reaches_the_end),
		OWN_TEST(a_lun_that_is_not_the_expected_one_is_stale),
		OWN_TEST(a_remade_lun_is_stale),
		OWN_TEST(a_refused_login_says_so),
		OWN_TEST(nobody_listening_is_connection_refused),
		OWN_TEST(two_sessions_of_one_initiator_live_together),
		OWN_TEST(a_frozen_target_times_out_all),
		OWN_TEST(cancel_ends_the_wait_for_a_frozen_target),
		OWN_TEST(opening_a_frozen_target_times_out_or_is_cancelled),
		OWN_TEST(a_target_that_keeps_silent_is_nudged),
		OWN_TEST(a_killed_target_resets_all),
		OWN_TEST(a_target_lost_while_idle_is_noticed),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	in_tls = argc == 2 && strcmp(argv[1], "tls") == 0;
	log_set_level(LOG_LEVEL_NONE);
	lun_door_start(&door);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	lun_door_stop(&door);
	return failed;
}
