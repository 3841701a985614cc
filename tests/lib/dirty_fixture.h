/* SPDX-License-Identifier: Apache-2.0 */
/* A tracker of what is written to the disks of a bare guest, and what it told. */
#ifndef FERRY_TESTS_LIB_DIRTY_FIXTURE_H
#define FERRY_TESTS_LIB_DIRTY_FIXTURE_H

#include "tests/lib/bare_guest.h"

#include "agent/guest/dirty.h"
#include "agent/guest/qmp.h"
#include "base/alloc.h"

#define JOB        "5b0ff9fc-3d24-4e1f-a4b7-5c0b5ad6d3c1"
#define DISK_BYTES (UINT64_C(16) << 20)
#define BLOCK      DIRTY_GRANULARITY
#define N_BLOCKS   (DISK_BYTES / BLOCK)

struct dirty_fixture {
	struct bare_guest bare;
	struct dirty *dirty;
	struct fault fault;
};

/* Of the blocks of a disk of DISK_BYTES, or the first of a larger one. */
struct harvest {
	bool blocks[N_BLOCKS];
	size_t n_extents;
	uint64_t bytes;
	uint64_t end; /* of the last extent */
};

static inline int dirty_fixture_setup(void **state)
{
	*state = xcalloc(1, sizeof(struct dirty_fixture));
	return 0;
}

static inline int dirty_fixture_teardown(void **state)
{
	struct dirty_fixture *f = *state;

	dirty_free(f->dirty);
	bare_guest_clear(&f->bare);
	fault_clear(&f->fault);
	free(f);
	return 0;
}

static inline struct dirty *dirty_fixture_new(
	struct dirty_fixture *f, const char *job, size_t n_disks, uint64_t size_bytes)
{
	static const char *const nodes[BARE_GUEST_DISKS] = {"d0", "d1", "d2", "d3"};
	struct dirty_disk disks[BARE_GUEST_DISKS];

	for (size_t i = 0; i < n_disks; i++)
		disks[i] = (struct dirty_disk){.node = nodes[i], .size_bytes = size_bytes};
	const struct dirty_params params = {
		.guest = f->bare.guest, .job = job, .disks = disks, .n_disks = n_disks};
	return dirty_new(&params);
}

/* As an agent that starts anew. */
static inline void dirty_fixture_open(struct dirty_fixture *f, size_t n_disks, uint64_t size_bytes)
{
	f->dirty = dirty_free(f->dirty);
	f->dirty = dirty_fixture_new(f, JOB, n_disks, size_bytes);
}

static inline void dirty_fixture_start(struct dirty_fixture *f, size_t n_disks, uint64_t size_bytes)
{
	const struct bare_guest_params params = {
		.n_disks = n_disks, .disk_bytes = size_bytes, .is_paused = true};

	bare_guest_start(&f->bare, &params);
	dirty_fixture_open(f, n_disks, size_bytes);
}

/* Ascending, apart from each other, in whole sectors. */
static inline int dirty_fixture_take(
	void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	struct harvest *harvest = arg;

	(void)fault;
	for (size_t i = 0; i < n; i++) {
		uint64_t offset = extents[i].offset;
		uint64_t end = offset + extents[i].length;
		assert_true(extents[i].length > 0 && offset % BLOCK == 0 && end % 512 == 0);
		assert_true(harvest->n_extents == 0 || offset > harvest->end);
		for (uint64_t at = offset; at < end && at < DISK_BYTES; at += BLOCK)
			harvest->blocks[at / BLOCK] = true;
		harvest->end = end;
		harvest->bytes += extents[i].length;
		harvest->n_extents++;
	}
	return 0;
}

static inline void dirty_fixture_read(
	struct dirty_fixture *f, size_t disk, struct harvest *ret_harvest)
{
	memset(ret_harvest, 0, sizeof(*ret_harvest));
	check_ok(&f->fault, dirty_read(f->dirty, disk, dirty_fixture_take, ret_harvest, &f->fault));
}

static inline bool dirty_fixture_has_iothread(struct dirty_fixture *f)
{
	struct value *answer CLEANUP_VALUE = bare_guest_ask(&f->bare, "qom-get",
		"{\"path\": \"/machine/peripheral/vd0\", \"property\": \"iothread\"}");

	return strcmp(value_string(answer, ""), "/objects/io0") == 0;
}

#endif
