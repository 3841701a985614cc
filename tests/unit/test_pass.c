/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds over what a guest writes, against a real tgtd. What fails: test_pass_failures.c. */
#include "agent/copy/pass.h"

#include "base/clock.h"
#include "tests/lib/check.h"
#include "tests/lib/nbd.h"
#include "tests/lib/pass_fixture.h"

#include <sys/stat.h>

static uint64_t allocated_bytes(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void exactly_what_the_log_has_is_sent(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 64 * MIB + 512);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	for (unsigned i = 0; i < 300; i++)
		pass_fixture_write(f, i * 200 * KIB, 4096, i + 1);
	pass_fixture_write(f, 64 * MIB, 512, 1);
	pass_fixture_write(f, 61 * MIB + 512, 2 * MIB, 2);
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(result.sent_bytes, 300 * 4096 + 512 + 2 * MIB);
	assert_int_equal(result.zero_bytes, 0);
	assert_int_equal(f->copy->progress.sent, result.sent_bytes);
	assert_int_equal(f->copy->progress.read, result.sent_bytes);
	assert_int_equal(f->n_compares, 1);
	assert_true(result.busy_usec <= result.usec);
}

static void an_empty_log_costs_nothing(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	for (int i = 0; i < 3; i++) {
		struct pass_result result = pass_fixture_round(pass);
		assert_int_equal(result.sent_bytes + result.zero_bytes + result.n_extents, 0);
	}
	assert_int_equal(f->n_compares, 0);
}

static void a_discard_becomes_a_hole(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 64 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 64 * MIB, 1);
	pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(allocated_bytes(f->copy->lun.path), 64 * MIB);

	uint64_t sent = f->copy->progress.sent;
	pass_fixture_discard(f, 8 * MIB, 32 * MIB);
	pass_fixture_discard(f, 50 * MIB + 4096, 4096);
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(f->copy->progress.sent, sent);
	assert_int_equal(result.sent_bytes, 0);
	assert_int_equal(result.zero_bytes, 32 * MIB + 4096);
	assert_int_equal(f->copy->progress.skipped_hole, 32 * MIB);
	assert_int_equal(f->copy->progress.skipped_zero, 4096);
	assert_int_equal(allocated_bytes(f->copy->lun.path), 32 * MIB - 4096);
}

static void zeros_that_were_written_are_not_sent(void **state)
{
	struct pass_fixture *f = *state;
	struct extent all = {0, 8 * MIB};

	pass_fixture_begin(f, 8 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 8 * MIB, 1);
	pass_fixture_round(pass);
	copy_fixture_fill_zeros(f->copy->source, 0, 8 * MIB);
	/* Every second block: the most runs that a piece can have. */
	for (uint64_t at = 0; at < 8 * MIB; at += 8192)
		copy_fixture_fill(f->copy->source, at, 4096, (uint32_t)at + 1);
	copy_fixture_log_add(f->copy, &all, 1);
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(result.sent_bytes, 4 * MIB);
	assert_int_equal(result.zero_bytes, 4 * MIB);
	assert_int_equal(f->copy->progress.skipped_zero, 4 * MIB);
	assert_int_equal(allocated_bytes(f->copy->lun.path), 4 * MIB);
}

static void a_large_discard_takes_many_comparisons(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * GIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	copy_fixture_fill(f->copy->lun.path, 3 * GIB, MIB, 1);
	pass_fixture_discard(f, 512, 4 * GIB - 512);
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_int_equal(result.zero_bytes, 4 * GIB - 512);
	assert_true(f->n_compares >= 4);
	assert_int_equal(allocated_bytes(f->copy->lun.path), 0);
}

static void a_long_log_is_copied_in_batches(void **state)
{
	struct pass_fixture *f = *state;
	struct extent extents[9000];
	uint64_t size = 160 * MIB;

	pass_fixture_begin(f, size);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	copy_fixture_fill(f->copy->source, 0, size, 1);
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++)
		extents[i] = (struct extent){i * 8192, 4096};
	copy_fixture_log_add(f->copy, extents, ARRAY_SIZE(extents));
	struct extent tail = {80 * MIB, 80 * MIB};
	copy_fixture_log_add(f->copy, &tail, 1);
	struct pass_result result = pass_fixture_round(pass);
	assert_int_equal(copy_fixture_log_bytes(f->copy), 0);
	assert_int_equal(result.sent_bytes, 9000 * 4096 + 80 * MIB);
	assert_true(f->n_compares >= 4);
	assert_int_equal(f->n_compared, result.n_extents);
}

/* What the guest writes in every round goes last, and nothing of the log is left out. */
static void hot_extents_go_last(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 32 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	for (uint32_t round = 1; round <= 4; round++) {
		pass_fixture_write(f, 2 * MIB, 4096, round);
		pass_fixture_write(f, (4 + 4 * round) * MIB, 4096, round);
		pass_fixture_round(pass);
		pass_fixture_check(f);
		assert_int_equal(f->last_offset, round <= 2 ? (4 + 4 * round) * MIB : 2 * MIB);
	}
	assert_int_equal(f->n_compares, 4);
}

/* With more rows than are looked at together, the log is walked twice. */
static void a_long_log_with_hot_extents_is_copied_whole(void **state)
{
	struct pass_fixture *f = *state;
	struct extent extents[5000];

	pass_fixture_begin(f, 64 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++)
		extents[i] = (struct extent){i * 8192, 4096};
	for (uint32_t round = 1; round <= 4; round++) {
		size_t n = round < 4 ? 1024 : ARRAY_SIZE(extents);
		copy_fixture_fill(f->copy->source, 0, 40 * MIB, round);
		copy_fixture_log_add(f->copy, extents, n);
		struct pass_result result = pass_fixture_round(pass);
		assert_int_equal(result.n_extents, n);
		assert_int_equal(copy_fixture_log_bytes(f->copy), 0);
	}
	assert_int_equal(f->last_offset, 1023 * 8192);
	struct extent all = {0, 64 * MIB};
	copy_fixture_log_add(f->copy, &all, 1);
	pass_fixture_round(pass);
	pass_fixture_check(f);
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* A guest that writes and discards at random, some of it again and again. The model: every byte it
 * touched is in the log before a round, so after it the files are the same. */
static void converge_at_random(struct pass_fixture *f, uint64_t size, int n_rounds)
{
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	uint32_t seed = 20261120;

	for (int round = 0; round < n_rounds; round++) {
		for (unsigned i = next_random(&seed) % 40; i > 0; i--) {
			uint64_t at = next_random(&seed) % (size / 512) * 512;
			uint64_t length = next_random(&seed) % 8 ? 4096 : 700 * KIB;
			at = next_random(&seed) % 4 ? at : at % (2 * MIB);
			length = MIN(length, size - at);
			if (next_random(&seed) % 5)
				pass_fixture_write(f, at, length, next_random(&seed) | 1);
			else
				pass_fixture_discard(f, at, length);
		}
		pass_fixture_round(pass);
		pass_fixture_check(f);
	}
}

static void after_random_writes_the_files_are_the_same(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 48 * MIB + 1536);
	converge_at_random(f, 48 * MIB + 1536, 30);
}

static void a_source_can_be_read_directly(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 16 * MIB + 512);
	f->params.source.direct = true;
	converge_at_random(f, 16 * MIB + 512, 10);
}

static void a_source_can_be_an_nbd_export(void **state)
{
	struct pass_fixture *f = *state;
	char *source = f->copy->source;
	struct nbd_fixture nbd;

	if (!nbd_is_available())
		skip();
	pass_fixture_begin(f, 16 * MIB);
	nbd_start(&nbd, "raw", 16 * MIB);
	f->copy->source = nbd.image; /* Where the guest writes. */
	f->params.source = nbd_spec(&nbd);
	f->params.source.writable = false;
	converge_at_random(f, 16 * MIB, 10);
	f->copy->source = source;
	nbd_stop(&nbd);
}

/* tgtd drops who does not answer its pings for 3 s. */
static void the_session_lives_between_rounds(void **state)
{
	struct pass_fixture *f = *state;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 4096, 1);
	pass_fixture_round(pass);
	cancel_sleep(NULL, 5 * USEC_PER_SEC);
	pass_fixture_write(f, MIB, 4096, 2);
	pass_fixture_round(pass);
	pass_fixture_check(f);
}

static void a_flush_can_be_had_by_itself(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass_result result;

	pass_fixture_begin(f, 4 * MIB);
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_begin_flush(pass);
	check_ok(&fault, pass_await(pass, &result, &fault));
	assert_int_equal(result.n_extents, 0);
	pass_fixture_write(f, 0, 4096, 1);
	pass_fixture_round(pass);
	pass_begin_flush(pass);
	check_ok(&fault, pass_await(pass, NULL, &fault));
	pass_fixture_check(f);
}

static void waiting_for_the_rate_is_not_busy(void **state)
{
	struct pass_fixture *f = *state;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(8 * MIB);

	pass_fixture_begin(f, 16 * MIB);
	f->params.rate = rate;
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 8 * MIB, 1);
	struct pass_result result = pass_fixture_round(pass);
	pass_fixture_check(f);
	assert_true(result.usec >= 700 * USEC_PER_MSEC);
	assert_true(result.busy_usec <= result.usec - 500 * USEC_PER_MSEC);
}

static void a_raised_limit_is_seen_by_a_round_under_way(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct rate_limit *rate CLEANUP_RATE_LIMIT = rate_limit_new(1000);

	pass_fixture_begin(f, 16 * MIB);
	f->params.rate = rate;
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 8 * MIB, 1);
	pass_begin(pass);
	rate_limit_set(rate, 0); /* Hours, otherwise. */
	check_ok(&fault, pass_await(pass, NULL, &fault));
	pass_fixture_check(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pass_fixture_setup, pass_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(exactly_what_the_log_has_is_sent),
		TEST(an_empty_log_costs_nothing),
		TEST(a_discard_becomes_a_hole),
		TEST(zeros_that_were_written_are_not_sent),
		TEST(a_large_discard_takes_many_comparisons),
		TEST(a_long_log_is_copied_in_batches),
		TEST(hot_extents_go_last),
		TEST(a_long_log_with_hot_extents_is_copied_whole),
		TEST(after_random_writes_the_files_are_the_same),
		TEST(a_source_can_be_read_directly),
		TEST(a_source_can_be_an_nbd_export),
		TEST(the_session_lives_between_rounds),
		TEST(a_flush_can_be_had_by_itself),
		TEST(waiting_for_the_rate_is_not_busy),
		TEST(a_raised_limit_is_seen_by_a_round_under_way),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
