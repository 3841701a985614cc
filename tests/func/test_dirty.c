/* SPDX-License-Identifier: Apache-2.0 */
/* What a real QEMU records of what is written, and what can go wrong with it. */
#include "tests/lib/bare_guest.h"

#include "agent/guest/dirty.h"
#include "base/alloc.h"

#define JOB        "5b0ff9fc-3d24-4e1f-a4b7-5c0b5ad6d3c1"
#define DISK_BYTES (UINT64_C(16) << 20)
#define BLOCK      DIRTY_GRANULARITY
#define N_BLOCKS   (DISK_BYTES / BLOCK)

struct fixture {
	struct bare_guest bare;
	struct dirty_disk disks[BARE_GUEST_DISKS];
	struct dirty *dirty;
	struct fault fault;
};

static const char *const nodes[BARE_GUEST_DISKS] = {"d0", "d1", "d2", "d3"};

static void open_tracker(struct fixture *f, size_t n_disks, uint64_t size_bytes)
{
	for (size_t i = 0; i < n_disks; i++)
		f->disks[i] = (struct dirty_disk){.node = nodes[i], .size_bytes = size_bytes};
	const struct dirty_params params = {
		.guest = f->bare.guest, .job = JOB, .disks = f->disks, .n_disks = n_disks};
	f->dirty = dirty_free(f->dirty);
	f->dirty = dirty_new(&params);
}

static void start(struct fixture *f, size_t n_disks, uint64_t size_bytes)
{
	const struct bare_guest_params params = {
		.n_disks = n_disks, .disk_bytes = size_bytes, .is_paused = true};

	bare_guest_start(&f->bare, &params);
	open_tracker(f, n_disks, size_bytes);
}

static int setup(void **state)
{
	*state = xcalloc(1, sizeof(struct fixture));
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	dirty_free(f->dirty);
	bare_guest_clear(&f->bare);
	fault_clear(&f->fault);
	free(f);
	return 0;
}

/* --- Extents ------------------------------------------------------------------------------------
 */

struct harvest {
	bool blocks[N_BLOCKS];
	size_t n_extents;
	uint64_t bytes;
	uint64_t end; /* of the last extent */
};

/* Ascending, apart from each other, in whole blocks, within the disk. */
static int take(void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	struct harvest *harvest = arg;

	(void)fault;
	for (size_t i = 0; i < n; i++) {
		uint64_t offset = extents[i].offset;
		uint64_t end = offset + extents[i].length;
		assert_true(extents[i].length > 0 && offset % BLOCK == 0 && end % BLOCK == 0);
		assert_true(harvest->n_extents == 0 || offset > harvest->end);
		for (uint64_t at = offset; at < end && at < DISK_BYTES; at += BLOCK)
			harvest->blocks[at / BLOCK] = true;
		harvest->end = end;
		harvest->bytes += extents[i].length;
		harvest->n_extents++;
	}
	return 0;
}

static void read_disk(struct fixture *f, size_t disk, struct harvest *harvest)
{
	*harvest = (struct harvest){.n_extents = 0};
	check_ok(&f->fault, dirty_read(f->dirty, disk, take, harvest, &f->fault));
}

static void what_was_written_is_read_and_forgotten(void **state)
{
	struct fixture *f = *state;
	struct harvest harvest;
	uint64_t bytes;

	start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -P 1 64k 128k");
	check_ok(&f->fault, dirty_count(f->dirty, &bytes, &f->fault));
	assert_int_equal(bytes, 128 << 10);
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	read_disk(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 1);
	assert_int_equal(harvest.bytes, 128 << 10);
	assert_true(harvest.blocks[16] && harvest.blocks[47] && !harvest.blocks[15]);
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	read_disk(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 0);
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_written_is_read_and_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
