/* SPDX-License-Identifier: Apache-2.0 */
/* Sources with bad sectors: what is lost, what is stored of it, and that both sides agree on it.
 * All reads pass through the wrappers, where what overlaps a bad range fails as a disk would. */
#include "agent/copy/salvage.h"

#include "agent/copy/compare.h"
#include "base/io.h"
#include "tests/lib/check.h"
#include "tests/lib/pass_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define SECTOR UINT64_C(512)

static struct {
	struct extent bad[4];
	_Atomic bool is_well; /* nothing fails now: another disk is read */
	uint64_t every;       /* each sector at a multiple of it; 0: none */
	int error;
	_Atomic unsigned n_failed;
} disk;

static bool is_bad(struct extent extent)
{
	if (disk.is_well)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(disk.bad); i++)
		if (disk.bad[i].offset < extent.offset + extent.length &&
			extent.offset < disk.bad[i].offset + disk.bad[i].length)
			return true;
	return disk.every && (extent.offset % disk.every == 0 ||
				     extent.offset / disk.every !=
					     (extent.offset + extent.length - 1) / disk.every);
}

int __real_endpoint_read(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault);
int __wrap_endpoint_read(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault);
int __real_endpoint_submit(struct endpoint *endpoint, struct endpoint_request *request);
int __wrap_endpoint_submit(struct endpoint *endpoint, struct endpoint_request *request);

int __wrap_endpoint_read(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault)
{
	if (!is_bad(extent))
		return __real_endpoint_read(endpoint, extent, data, cancel, fault);
	disk.n_failed++;
	memset(data, 0xee, (size_t)extent.length);
	return fault_text(fault, disk.error, "a bad sector");
}

int __wrap_endpoint_submit(struct endpoint *endpoint, struct endpoint_request *request)
{
	if (request->op != ENDPOINT_READ || !is_bad(request->extent))
		return __real_endpoint_submit(endpoint, request);
	request->done(request, disk.error);
	return 0;
}

static int setup(void **state)
{
	memset(&disk, 0, sizeof(disk));
	disk.error = -EIO;
	return pass_fixture_setup(state);
}

/* "1+1 8+3", in sectors, of what is stored as lost. */
static void assert_lost(struct pass_fixture *f, const char *expected)
{
	struct unreadable_row *rows CLEANUP_FREE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char text[256] = "";
	size_t n = 0;

	check_ok(&fault, unreadable_list(f->copy->db, M, 0, &rows, &n, &fault));
	for (size_t i = 0; i < n && i < 8; i++) {
		size_t at = strlen(text);
		assert_int_equal(rows[i].error, EIO);
		snprintf(text + at, sizeof(text) - at, "%s%llu+%llu", i ? " " : "",
			(unsigned long long)(rows[i].extent.offset / SECTOR),
			(unsigned long long)(rows[i].extent.length / SECTOR));
	}
	assert_string_equal(text, expected);
}

/* --- Reading ---------------------------------------------------------------------------------- */

struct reader {
	struct salvage *salvage;
	struct endpoint *source;
	struct salvage_source from;
	unsigned char data[MIB];
	struct fault fault;
};

static struct reader *reader_open(struct pass_fixture *f, uint64_t size_bytes)
{
	struct reader *reader = calloc(1, sizeof(*reader));

	assert_non_null(reader);
	copy_fixture_source(f->copy, size_bytes);
	copy_fixture_fill(f->copy->source, 0, size_bytes, 1);
	check_ok(&reader->fault, salvage_open(f->copy->db, M, 0, &reader->salvage, &reader->fault));
	check_ok(&reader->fault, endpoint_open(&f->copy->params.source, f->copy->cancel,
					 &reader->source, &reader->fault));
	reader->from = (struct salvage_source){.spec = &f->copy->params.source,
		.source = reader->source,
		.cancel = f->copy->cancel,
		.sends = true};
	return reader;
}

static void reader_close(struct reader *reader)
{
	endpoint_close(reader->source);
	salvage_free(reader->salvage);
	fault_clear(&reader->fault);
	free(reader);
}

static int reader_read(struct reader *reader, uint64_t sector, uint64_t n)
{
	struct extent extent = {sector * SECTOR, n * SECTOR};

	return salvage_read(reader->salvage, &reader->from, extent, reader->data, &reader->fault);
}

/* The buffer has the sectors from `first` on as they are in the file, but zeros for [from, to). */
static void assert_read(struct pass_fixture *f, const struct reader *reader, uint64_t first,
	uint64_t n, uint64_t from, uint64_t to)
{
	static unsigned char expected[MIB];
	int fd CLEANUP_CLOSE = open(f->copy->source, O_RDONLY | O_CLOEXEC);

	assert_int_equal(io_pread_full(fd, expected, (size_t)(n * SECTOR), first * SECTOR), 0);
	memset(expected + (from - first) * SECTOR, 0, (size_t)((to - from) * SECTOR));
	assert_memory_equal(reader->data, expected, (size_t)(n * SECTOR));
}

static void only_bad_sectors_are_lost(void **state)
{
	struct pass_fixture *f = *state;
	struct reader *reader = reader_open(f, MIB);

	disk.bad[0] = (struct extent){100 * SECTOR, SECTOR};
	check_ok(&reader->fault, reader_read(reader, 0, 2048));
	assert_read(f, reader, 0, 2048, 100, 101);
	assert_lost(f, "100+1");
	/* The request, its page, its sector: a bad sector takes its time. */
	assert_int_equal(disk.n_failed, 3);
	/* Across pages, and not aligned to them. */
	disk.bad[0] = (struct extent){206 * SECTOR, 5 * SECTOR};
	check_ok(&reader->fault, reader_read(reader, 203, 9));
	assert_read(f, reader, 203, 9, 206, 211);
	assert_lost(f, "100+1 206+5");
	/* What touches is one range. */
	disk.bad[0] = (struct extent){211 * SECTOR, SECTOR};
	check_ok(&reader->fault, reader_read(reader, 211, 1));
	assert_lost(f, "100+1 206+6");
	assert_null(reader->fault.code);
	reader_close(reader);
}

static void what_can_be_read_again_is_not_lost(void **state)
{
	struct pass_fixture *f = *state;
	struct reader *reader = reader_open(f, MIB);

	disk.bad[0] = (struct extent){100 * SECTOR, 8 * SECTOR};
	check_ok(&reader->fault, reader_read(reader, 0, 2048));
	assert_lost(f, "100+8");
	/* One sector of them, while those beside it stay bad. */
	disk.bad[0].length = 3 * SECTOR;
	disk.bad[1] = (struct extent){104 * SECTOR, 4 * SECTOR};
	check_ok(&reader->fault, reader_read(reader, 96, 16));
	assert_lost(f, "100+3 104+4");
	/* Who only compares does not bring it there. */
	disk.bad[0].length = disk.bad[1].length = 0;
	reader->from.sends = false;
	check_ok(&reader->fault, reader_read(reader, 0, 2048));
	assert_lost(f, "100+3 104+4");
	/* An agent that started again knows of it. */
	salvage_free(reader->salvage);
	check_ok(&reader->fault, salvage_open(f->copy->db, M, 0, &reader->salvage, &reader->fault));
	reader->from.sends = true;
	check_ok(&reader->fault, reader_read(reader, 101, 1));
	assert_lost(f, "100+1 102+1 104+4");
	check_ok(&reader->fault, reader_read(reader, 0, 2048));
	assert_lost(f, "");
	reader_close(reader);
}

static void assert_refused(struct reader *reader, int r)
{
	assert_int_equal(r, -EIO);
	assert_non_null(strstr(reader->fault.params[0], "options:on_read_error=zero"));
}

static void many_ranges_are_a_dead_disk(void **state)
{
	struct pass_fixture *f = *state;
	struct reader *reader = reader_open(f, 2 * MIB);
	uint64_t bytes = 0;

	disk.every = 2 * SECTOR;
	check_ok(&reader->fault, reader_read(reader, 0, 2 * SALVAGE_MAX_RANGES));
	assert_refused(reader, reader_read(reader, 2 * SALVAGE_MAX_RANGES, 8));
	check_ok(&reader->fault, unreadable_total(f->copy->db, M, &bytes, &reader->fault));
	assert_int_equal(bytes, (SALVAGE_MAX_RANGES + 1) * SECTOR);
	reader_close(reader);
}

static void many_bytes_are_a_dead_disk(void **state)
{
	struct pass_fixture *f = *state;
	struct reader *reader = reader_open(f, SALVAGE_MAX_BYTES + MIB);
	uint64_t at = 0;

	disk.bad[0] = (struct extent){0, SALVAGE_MAX_BYTES + MIB};
	for (; at < SALVAGE_MAX_BYTES / SECTOR; at += 2048)
		check_ok(&reader->fault, reader_read(reader, at, 2048));
	assert_refused(reader, reader_read(reader, at, 1));
	reader_close(reader);
}

static void only_bad_sectors_count_as_such(void **state)
{
	struct pass_fixture *f = *state;
	struct reader *reader = reader_open(f, MIB);

	disk.bad[0] = (struct extent){8 * SECTOR, SECTOR};
	disk.error = -ETIMEDOUT;
	assert_int_equal(reader_read(reader, 0, 16), -ETIMEDOUT);
	disk.error = -EIO;
	assert_int_equal(truncate(f->copy->source, (off_t)(MIB / 2)), 0);
	assert_int_equal(reader_read(reader, 0, 16), -EIO);
	assert_non_null(strstr(reader->fault.params[0], "its size changed"));
	assert_lost(f, "");
	reader_close(reader);
}

/* The receiver, whose disk is well. */
static pass_compare compare_well;

static int compare(void *arg, unsigned number, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	disk.is_well = true;
	int r = compare_well(arg, number, extents, n, digests, ret_differs, fault);
	disk.is_well = false;
	return r;
}

static void check_copy(struct pass_fixture *f)
{
	disk.is_well = true;
	copy_fixture_check(f->copy);
	disk.is_well = false;
}

/* --- Copies ----------------------------------------------------------------------------------- */

static void copy_with_salvage(struct pass_fixture *f)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct salvage *salvage CLEANUP_SALVAGE = NULL;

	check_ok(&fault, salvage_open(f->copy->db, M, 0, &salvage, &fault));
	f->copy->params.salvage = salvage;
	check_ok(&fault, copy_run(&f->copy->params, &fault));
	f->copy->params.salvage = NULL;
}

static void a_copy_fails_unless_it_is_told_otherwise(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	copy_fixture_begin(f->copy, 8 * MIB);
	copy_fixture_fill(f->copy->source, 0, 8 * MIB, 1);
	disk.bad[0] = (struct extent){5 * MIB, SECTOR};
	assert_int_equal(copy_run(&f->copy->params, &fault), -EIO);
	assert_non_null(strstr(fault.params[0], "disk 0, source: a bad sector"));
	assert_lost(f, "");
}

/* Content, log and digests are those of a source that has zeros there. */
static void a_copy_has_zeros_for_what_is_lost(void **state)
{
	struct pass_fixture *f = *state;

	copy_fixture_begin(f->copy, 16 * MIB);
	copy_fixture_fill(f->copy->source, 0, 16 * MIB, 1);
	disk.bad[0] = (struct extent){5 * MIB - SECTOR, 2 * SECTOR};
	disk.bad[1] = (struct extent){9 * MIB + 3 * SECTOR, SECTOR};
	copy_with_salvage(f);
	assert_lost(f, "10239+2 18435+1");
	copy_fixture_fill_zeros(f->copy->source, 5 * MIB - SECTOR, 2 * SECTOR);
	copy_fixture_fill_zeros(f->copy->source, 9 * MIB + 3 * SECTOR, SECTOR);
	check_copy(f);
	/* It is copied again, to a target that has something else there. */
	copy_fixture_fill(f->copy->lun.path, 5 * MIB - SECTOR, 2 * SECTOR, 7);
	struct extent again = {4 * MIB, 2 * MIB};
	copy_fixture_log_add(f->copy, &again, 1);
	f->copy->params.target_fresh = false;
	copy_with_salvage(f);
	check_copy(f);
	assert_lost(f, "10239+2 18435+1");
}

/* What the receiver has for it is what is compared: nothing is sent twice. */
static void a_comparison_takes_it_for_zeros(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct extent all = {0, 8 * MIB};

	pass_fixture_begin(f, 8 * MIB);
	f->copy->params.target = f->params.target;
	compare_well = f->params.compare;
	copy_fixture_fill(f->copy->source, 0, 8 * MIB, 1);
	copy_fixture_log_add(f->copy, &all, 1);
	disk.bad[0] = (struct extent){5 * MIB, 8 * SECTOR};
	copy_with_salvage(f);
	copy_fixture_log_add(f->copy, &all, 1);
	struct salvage *salvage CLEANUP_SALVAGE = NULL;
	check_ok(&fault, salvage_open(f->copy->db, M, 0, &salvage, &fault));
	f->copy->params.salvage = salvage;
	const struct copy_compare_params params = {.copy = &f->copy->params,
		.ask = compare,
		.arg = f,
		.by_piece = true,
		.whole_log = true};
	check_ok(&fault, copy_compare(&params, &fault));
	f->copy->params.salvage = NULL;
	assert_int_equal(copy_fixture_log_bytes(f->copy), 0);
	assert_lost(f, "10240+8");
}

static void what_the_guest_writes_anew_is_not_lost(void **state)
{
	struct pass_fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct salvage *salvage CLEANUP_SALVAGE = NULL;

	pass_fixture_begin(f, 8 * MIB);
	check_ok(&fault, salvage_open(f->copy->db, M, 0, &salvage, &fault));
	f->params.salvage = salvage;
	compare_well = f->params.compare;
	f->params.compare = compare;
	struct pass *pass CLEANUP_PASS = pass_fixture_open(f);
	pass_fixture_write(f, 0, 8 * MIB, 1);
	disk.bad[0] = (struct extent){5 * MIB, 2 * SECTOR};
	disk.bad[1] = (struct extent){6 * MIB, SECTOR};
	disk.bad[2] = (struct extent){7 * MIB, 16 * SECTOR};
	pass_fixture_round(pass);
	assert_lost(f, "10240+2 12288+1 14336+16");
	/* The first of two; one whose page was written; a hole. */
	disk.bad[0] = (struct extent){5 * MIB + SECTOR, SECTOR};
	disk.bad[1].length = disk.bad[2].length = 0;
	pass_fixture_write(f, 5 * MIB, 4096, 2);
	pass_fixture_write(f, 6 * MIB, 4096, 3);
	pass_fixture_discard(f, 7 * MIB, MIB);
	pass_fixture_round(pass);
	assert_lost(f, "10241+1");
	copy_fixture_fill_zeros(f->copy->source, 5 * MIB + SECTOR, SECTOR);
	disk.is_well = true;
	pass_fixture_check(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, pass_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_bad_sectors_are_lost),
		TEST(what_can_be_read_again_is_not_lost),
		TEST(many_ranges_are_a_dead_disk),
		TEST(many_bytes_are_a_dead_disk),
		TEST(only_bad_sectors_count_as_such),
		TEST(a_copy_fails_unless_it_is_told_otherwise),
		TEST(a_copy_has_zeros_for_what_is_lost),
		TEST(a_comparison_takes_it_for_zeros),
		TEST(what_the_guest_writes_anew_is_not_lost),
	};

	if (!lun_is_available()) {
		print_message("tgtd is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
