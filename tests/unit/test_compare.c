/* SPDX-License-Identifier: Apache-2.0 */
/* What a comparison takes out of the extent log, against a real tgtd whose file answers. */
#include "agent/copy/compare.h"

#include "agent/copy/digest.h"
#include "base/alloc.h"
#include "tests/lib/check.h"
#include "tests/lib/copy_fixture.h"

#include <errno.h>

struct asked {
	struct copy_fixture *f;
	int error; /* to be answered */
	unsigned n_calls;
	uint64_t bytes;
	bool lies; /* says that all is the same */
};

/* As the receiver does: it reads its own file. */
static int ask(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	struct asked *asked = arg;
	unsigned char *there CLEANUP_FREE = xcalloc(n, DIGEST_BYTES);

	assert_int_equal(disk, 0);
	assert_true(n <= PASS_MAX_EXTENTS);
	asked->n_calls++;
	if (asked->error)
		return fault_text(fault, asked->error, "told to fail");
	for (size_t i = 0; i < n; i++)
		asked->bytes += extents[i].length;
	struct endpoint_spec source = asked->f->params.source;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	check_ok(fault, endpoint_open(&source, asked->f->cancel, &endpoint, fault));
	check_ok(fault, digest_file_extents(asked->f->lun.path, endpoint_size(endpoint), extents, n,
				asked->f->cancel, there, fault));
	for (size_t i = 0; i < n && !asked->lies; i++)
		ret_differs[i] = memcmp(there + i * DIGEST_BYTES, digests + i * DIGEST_BYTES,
					 DIGEST_BYTES) != 0;
	return 0;
}

static int compare(struct copy_fixture *f, struct asked *asked, bool by_piece, bool whole_log,
	struct fault *fault)
{
	asked->f = f;
	return copy_compare(
		&(struct copy_compare_params){
			.copy = &f->params,
			.ask = ask,
			.arg = asked,
			.by_piece = by_piece,
			.whole_log = whole_log,
		},
		fault);
}

static void compare_ok(struct copy_fixture *f, struct asked *asked, bool by_piece, bool whole_log)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	check_ok(&fault, compare(f, asked, by_piece, whole_log, &fault));
}

static void copy_and_check(struct copy_fixture *f)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	check_ok(&fault, copy_run(&f->params, &fault));
	copy_fixture_check(f);
}

static void log_everything(struct copy_fixture *f, uint64_t size)
{
	copy_fixture_log_add(f, &(struct extent){0, size}, 1);
}

/* A disk whose log was lost costs no byte of data when it is whole at the target. */
static void what_is_the_same_is_not_sent_again(void **state)
{
	struct copy_fixture *f = *state;
	struct asked asked = {0};
	const uint64_t size = 72 * MIB + 512;

	copy_fixture_begin(f, size);
	copy_fixture_fill(f->source, 0, 40 * MIB, 1);
	copy_fixture_fill(f->source, 70 * MIB, 2 * MIB + 512, 2);
	copy_and_check(f);
	uint64_t sent = f->progress.sent;
	log_everything(f, size);
	compare_ok(f, &asked, false, true);
	assert_int_equal(copy_fixture_log_bytes(f), 0);
	assert_int_equal(f->progress.same, 42 * MIB + 512);
	assert_int_equal(f->progress.compared, f->progress.same);
	assert_int_equal(asked.bytes, size);
	copy_and_check(f);
	assert_int_equal(f->progress.sent, sent);
}

/* What changed at either side, also from data to zeros and back, is found to the piece. */
static void pieces_that_differ_stay_in_the_log(void **state)
{
	struct copy_fixture *f = *state;
	struct asked asked = {0};
	const uint64_t size = 32 * MIB;

	copy_fixture_begin(f, size);
	copy_fixture_fill(f->source, 0, 24 * MIB, 1);
	copy_and_check(f);
	copy_fixture_fill(f->source, 5 * MIB + 4096, 512, 3);
	copy_fixture_fill_zeros(f->source, 9 * MIB, 64 * KIB);
	copy_fixture_fill(f->source, 30 * MIB, 4096, 4);
	copy_fixture_fill(f->lun.path, 31 * MIB, 4096, 5);
	log_everything(f, size);
	compare_ok(f, &asked, true, true);
	assert_int_equal(copy_fixture_log_bytes(f), 4 * 64 * KIB);
	assert_int_equal(f->progress.same, 24 * MIB - 2 * 64 * KIB);
	uint64_t sent = f->progress.sent;
	f->params.target_fresh = false;
	copy_and_check(f);
	assert_true(f->progress.sent - sent <= 3 * 64 * KIB);
}

static void whole_chunks_only_unless_pieces_are_wanted(void **state)
{
	struct copy_fixture *f = *state;
	struct asked asked = {0};

	copy_fixture_begin(f, 16 * MIB);
	copy_fixture_fill(f->source, 0, 16 * MIB, 1);
	copy_and_check(f);
	copy_fixture_fill(f->source, 5 * MIB, 512, 3);
	log_everything(f, 16 * MIB);
	compare_ok(f, &asked, false, true);
	assert_int_equal(copy_fixture_log_bytes(f), DIGEST_CHUNK);
	copy_and_check(f);
}

/* A copy that was hardly begun is not read twice as a whole. */
static void what_was_never_sent_is_not_compared(void **state)
{
	struct copy_fixture *f = *state;
	struct asked asked = {0};
	const uint64_t size = 320 * MIB;

	copy_fixture_begin(f, size);
	copy_fixture_fill(f->source, 0, size, 1);
	copy_fixture_fill(f->lun.path, 0, 80 * MIB, 1);
	compare_ok(f, &asked, true, false);
	assert_int_equal(copy_fixture_log_bytes(f), 240 * MIB);
	assert_int_equal(f->progress.same, 80 * MIB);
	assert_int_equal(asked.n_calls, 3);
	copy_and_check(f);
	assert_int_equal(f->progress.sent, 240 * MIB);
}

static void an_error_leaves_the_log(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct asked asked = {.error = -ETIMEDOUT};

	copy_fixture_begin(f, 8 * MIB);
	copy_fixture_fill(f->source, 0, 8 * MIB, 1);
	assert_int_equal(compare(f, &asked, true, true, &fault), -ETIMEDOUT);
	assert_int_equal(copy_fixture_log_bytes(f), 8 * MIB);
	fault_clear(&fault);
	cancel_request(f->cancel, "test");
	assert_int_equal(compare(f, &asked, true, true, &fault), -ECANCELED);
	assert_int_equal(asked.n_calls, 1);
}

/* Whoever says that it has what it has not is found out: the digest that is stored is that of the
 * source, and the comparison of the whole disk follows. */
static void a_lie_is_kept_as_the_sources_digest(void **state)
{
	struct copy_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct asked asked = {.lies = true};
	unsigned char stored[DIGEST_SPAN_BYTES], here[DIGEST_SPAN_BYTES];

	copy_fixture_begin(f, 8 * MIB);
	copy_fixture_fill(f->source, 0, 8 * MIB, 1);
	compare_ok(f, &asked, true, true);
	assert_int_equal(copy_fixture_log_bytes(f), 0);
	assert_int_equal(digest_load(f->db, M, 0, 0, stored, sizeof(stored), &fault), 1);
	check_ok(&fault, digest_file_span(f->source, 8 * MIB, 0, f->cancel, here, &fault));
	assert_memory_equal(stored, here, sizeof(here));
}

#define WITH_DISKS(test)                                                                           \
	cmocka_unit_test_setup_teardown(test, copy_fixture_setup, copy_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DISKS(what_is_the_same_is_not_sent_again),
		WITH_DISKS(pieces_that_differ_stay_in_the_log),
		WITH_DISKS(whole_chunks_only_unless_pieces_are_wanted),
		WITH_DISKS(what_was_never_sent_is_not_compared),
		WITH_DISKS(an_error_leaves_the_log),
		WITH_DISKS(a_lie_is_kept_as_the_sources_digest),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
