/* SPDX-License-Identifier: Apache-2.0 */
/* What a real QEMU records of what is written, whose disks are in an iothread, and whether nothing
 * of it is lost. */
#include "tests/lib/dirty_fixture.h"

#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>

static int take_and_fail(void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	(void)arg;
	(void)extents;
	(void)n;
	return fault_text(fault, -ENOSPC, "no room");
}

/* --- One generation -----------------------------------------------------------------------------
 */

static void what_was_written_is_read_and_forgotten(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;
	uint64_t bytes;

	dirty_fixture_start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 64k 128k");
	check_ok(&f->fault, dirty_count(f->dirty, &bytes, &f->fault));
	assert_int_equal(bytes, 128 << 10);
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 1);
	assert_int_equal(harvest.bytes, 128 << 10);
	assert_true(harvest.blocks[16] && harvest.blocks[47] && !harvest.blocks[15]);
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 0);
}

static void a_small_write_marks_one_block(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 12800 512");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.bytes, BLOCK);
	assert_true(harvest.blocks[12800 / BLOCK]);
}

static void discards_and_zeroes_are_writes(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "discard -q 1M 64k");
	bare_guest_io(&f->bare, 0, "write -q -z 2M 64k");
	bare_guest_io(&f->bare, 0, "write -q -z -u 3M 64k");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 3);
	assert_int_equal(harvest.bytes, 3 * (64 << 10));
	assert_true(harvest.blocks[256] && harvest.blocks[512] && harvest.blocks[768]);
}

static void the_end_of_a_disk_of_odd_size_is_within_it(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;
	uint64_t size = DISK_BYTES - BLOCK + 512;

	dirty_fixture_start(f, 1, size);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 %llu 512", (unsigned long long)size - 512);
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 1);
	assert_int_equal(harvest.end, size);
}

/* More than a request of NBD can ask for, and more than one reply holds. */
static void a_large_disk_is_read_in_pieces(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 1, UINT64_C(20) << 30);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -z 4095M 2M");
	bare_guest_io(&f->bare, 0, "write -q -P 1 20479M 1M");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.n_extents, 2);
	assert_int_equal(harvest.bytes, 3 << 20);
	assert_int_equal(harvest.end, UINT64_C(20) << 30);
}

static void what_is_not_stored_stays_frozen(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 0 4k");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	assert_int_equal(dirty_read(f->dirty, 0, take_and_fail, NULL, &f->fault), -ENOSPC);
	assert_string_equal(f->fault.params[0], "no room");
	bare_guest_io(&f->bare, 0, "write -q -P 1 1M 4k");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &harvest);
	assert_int_equal(harvest.bytes, BLOCK);
	assert_true(harvest.blocks[0]);
}

static void what_is_not_frozen_cannot_be_read(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	assert_int_equal(dirty_read(f->dirty, 0, dirty_fixture_take, &harvest, &f->fault), -EINVAL);
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
}

static void a_guest_without_disks_needs_no_tracking(void **state)
{
	struct dirty_fixture *f = *state;
	enum dirty_state found;
	uint64_t nothing;

	dirty_fixture_start(f, 0, DISK_BYTES);
	check_ok(&f->fault, dirty_probe(f->dirty, &found, &f->fault));
	assert_int_equal(found, DIRTY_NONE);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_count(f->dirty, &nothing, &f->fault));
	check_ok(&f->fault, dirty_check(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
	check_ok(&f->fault, dirty_stop(f->dirty, &f->fault));
}

/* --- Generations, with what a model says --------------------------------------------------------
 */

#define MODEL_DISKS  2
#define MODEL_ROUNDS 60

struct model {
	unsigned seed;
	bool recording[MODEL_DISKS][N_BLOCKS];
	bool frozen[MODEL_DISKS][N_BLOCKS];
	bool is_frozen;
};

static unsigned draw(struct model *model, unsigned below)
{
	return (unsigned)rand_r(&model->seed) % below;
}

static void write_somewhere(struct dirty_fixture *f, struct model *model)
{
	static const char *const commands[] = {
		"write -q -P 7", "write -q -z", "write -q -z -u", "discard -q"};
	unsigned disk = draw(model, MODEL_DISKS);
	unsigned first = draw(model, N_BLOCKS);
	unsigned n = 1 + draw(model, (unsigned)MIN(N_BLOCKS - first, 40U));

	bare_guest_io(&f->bare, disk, "%s %u %u", commands[draw(model, ARRAY_SIZE(commands))],
		first * BLOCK, n * BLOCK);
	for (unsigned i = first; i < first + n; i++)
		model->recording[disk][i] = true;
}

static void freeze(struct dirty_fixture *f, struct model *model)
{
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	if (model->is_frozen)
		return;
	memcpy(model->frozen, model->recording, sizeof(model->frozen));
	memset(model->recording, 0, sizeof(model->recording));
	model->is_frozen = true;
}

static void check_model(struct dirty_fixture *f, const struct model *model)
{
	for (size_t disk = 0; disk < MODEL_DISKS && model->is_frozen; disk++) {
		struct harvest harvest;
		dirty_fixture_read(f, disk, &harvest);
		assert_memory_equal(harvest.blocks, model->frozen[disk], sizeof(harvest.blocks));
	}
}

static void acknowledge(struct dirty_fixture *f, struct model *model)
{
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
	model->is_frozen = false;
}

/* The agent dies, and finds again what is there. */
static void die(struct dirty_fixture *f, const struct model *model)
{
	enum dirty_state found = DIRTY_NONE;

	bare_guest_find(&f->bare);
	dirty_fixture_open(f, MODEL_DISKS, DISK_BYTES);
	check_ok(&f->fault, dirty_probe(f->dirty, &found, &f->fault));
	assert_int_equal(found, model->is_frozen ? DIRTY_FROZEN : DIRTY_RECORDING);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
}

static void nothing_that_was_written_is_missing_or_invented(void **state)
{
	struct dirty_fixture *f = *state;
	struct model *model = xcalloc(1, sizeof(*model));

	random_bytes(&model->seed, sizeof(model->seed));
	print_message("seed %u\n", model->seed);
	dirty_fixture_start(f, MODEL_DISKS, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	for (int round = 0; round < MODEL_ROUNDS; round++) {
		for (unsigned n = draw(model, 8); n > 0; n--)
			write_somewhere(f, model);
		switch (draw(model, 8)) {
		case 0:
			die(f, model);
			break;
		case 1:
		case 2:
			acknowledge(f, model);
			break;
		case 3:
		case 4:
			check_model(f, model);
			break;
		default:
			freeze(f, model);
			break;
		}
		check_ok(&f->fault, dirty_check(f->dirty, &f->fault));
	}
	check_model(f, model);
	acknowledge(f, model);
	freeze(f, model);
	check_model(f, model);
	free(model);
}

static void a_freeze_repeated_is_the_same_freeze(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest first, second;

	dirty_fixture_start(f, 1, DISK_BYTES);
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	bare_guest_io(&f->bare, 0, "write -q -P 1 0 64k");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &first);
	bare_guest_io(&f->bare, 0, "write -q -P 1 1M 64k");
	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &second);
	assert_memory_equal(&first, &second, sizeof(first));
}

/* --- One point in time --------------------------------------------------------------------------
 */

struct writer {
	struct qmp *qmp;
	struct cancel *stop;
	unsigned n; /* blocks written to both disks */
	bool failed;
};

static bool write_block(struct writer *writer, unsigned disk, unsigned block)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set(arguments, "command-line",
		value_new_format("qemu-io -d /machine/peripheral/vd%u/virtio-backend "
				 "\"write -q -P 1 %u 512\"",
			disk, block * BLOCK));
	return qmp_call(writer->qmp, "human-monitor-command", arguments,
		       clock_deadline(20 * USEC_PER_SEC), NULL, NULL, NULL) == 0;
}

/* Each block to the first disk, then to the second one. */
static void *writer_main(void *arg)
{
	struct writer *writer = arg;

	while (!cancel_is_requested(writer->stop) && writer->n < N_BLOCKS && !writer->failed) {
		writer->failed =
			!write_block(writer, 0, writer->n) || !write_block(writer, 1, writer->n);
		writer->n++;
	}
	return NULL;
}

/* Beside a writer: the second disk is never ahead of the first, nor more than a block behind. */
static void check_point(struct dirty_fixture *f, uint64_t *ahead)
{
	struct harvest first, second;

	check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
	dirty_fixture_read(f, 0, &first);
	dirty_fixture_read(f, 1, &second);
	check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
	ahead[0] = MAX(ahead[0], first.end);
	ahead[1] = MAX(ahead[1], second.end);
	assert_true(ahead[0] == ahead[1] || ahead[0] == ahead[1] + BLOCK);
}

static void a_freeze_is_one_point_for_all_disks(void **state)
{
	struct dirty_fixture *f = *state;
	struct writer writer = {.stop = cancel_new()};
	uint64_t ahead[2] = {0};
	pthread_t thread;

	dirty_fixture_start(f, 2, DISK_BYTES);
	char *path CLEANUP_FREE = guest_file(f->bare.spec.run_dir, GUEST_QMP_SPARE);
	const struct qmp_params params = {
		.path = path, .deadline_usec = clock_deadline(20 * USEC_PER_SEC)};
	check_ok(&f->fault, qmp_open(&params, &writer.qmp, &f->fault));
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	assert_int_equal(pthread_create(&thread, NULL, writer_main, &writer), 0);
	for (int i = 0; i < 40; i++)
		check_point(f, ahead);
	cancel_request(writer.stop, "enough");
	pthread_join(thread, NULL);
	check_point(f, ahead);
	assert_false(writer.failed);
	assert_int_equal(ahead[0], writer.n * BLOCK);
	qmp_close(writer.qmp);
	cancel_free(writer.stop);
}

static void an_iothread_survives_many_rounds(void **state)
{
	struct dirty_fixture *f = *state;
	struct harvest harvest;

	dirty_fixture_start(f, 1, DISK_BYTES);
	assert_true(dirty_fixture_has_iothread(f));
	check_ok(&f->fault, dirty_start(f->dirty, &f->fault));
	for (unsigned i = 0; i < 50; i++) {
		bare_guest_io(&f->bare, 0, "write -q -P 1 %u 4k", i * 2 * BLOCK);
		check_ok(&f->fault, dirty_freeze(f->dirty, &f->fault));
		dirty_fixture_read(f, 0, &harvest);
		assert_int_equal(harvest.n_extents, 1);
		assert_true(harvest.blocks[i * 2]);
		check_ok(&f->fault, dirty_acknowledge(f->dirty, &f->fault));
	}
	assert_true(guest_is_alive(f->bare.guest));
}

#define TEST(name)                                                                                 \
	cmocka_unit_test_setup_teardown(name, dirty_fixture_setup, dirty_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_written_is_read_and_forgotten),
		TEST(a_small_write_marks_one_block),
		TEST(discards_and_zeroes_are_writes),
		TEST(the_end_of_a_disk_of_odd_size_is_within_it),
		TEST(a_large_disk_is_read_in_pieces),
		TEST(what_is_not_stored_stays_frozen),
		TEST(what_is_not_frozen_cannot_be_read),
		TEST(a_guest_without_disks_needs_no_tracking),
		TEST(nothing_that_was_written_is_missing_or_invented),
		TEST(a_freeze_repeated_is_the_same_freeze),
		TEST(a_freeze_is_one_point_for_all_disks),
		TEST(an_iothread_survives_many_rounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
