/* SPDX-License-Identifier: Apache-2.0 */
/* Wherever a move of a VDI ends, storage_recover() leaves the file that the VDI names, alone. */
#include "tests/lib/storage_fixture.h"

#include "agent/storage/move.h"
#include "target/image.h"

#include <errno.h>

#define OWNER    "aaaaaaaa-0000-4000-8000-000000000001"
#define QEMU_IMG "/usr/bin/qemu-img"
#define MIB      (INT64_C(1) << 20)

struct moving {
	struct fixture *fixture;
	char *vdi;
	char *other; /* SR */
	struct storage_move move;
};

static void moving_begin(struct moving *moving, struct fixture *f)
{
	char *folder CLEANUP_FREE = xasprintf("%s/other", f->folder);

	*moving = (struct moving){.fixture = f, .vdi = fixture_new_vdi(f, MIB)};
	assert_int_equal(mkdir(folder, 0700), 0);
	check_ok(&f->fault, fixture_sr_at(f, folder, &moving->other));
	check_ok(&f->fault, storage_move_plan(&f->storage, OWNER, moving->vdi, moving->other,
				    &moving->move, &f->fault));
}

static void moving_end(struct moving *moving)
{
	storage_move_clear(&moving->move);
	free(moving->other);
	free(moving->vdi);
}

#define CLEANUP_MOVING CLEANUP(moving_end)

static void prepare(struct moving *moving)
{
	struct fixture *f = moving->fixture;

	check_ok(&f->fault, storage_move_prepare(&f->storage, &moving->move, &f->fault));
	assert_int_equal(access(moving->move.from.path, F_OK), 0);
	assert_int_equal(access(moving->move.to.path, F_OK), 0);
}

static void commit(struct moving *moving, bool back)
{
	struct fixture *f = moving->fixture;

	check_ok(&f->fault, storage_move_commit(&f->storage, &moving->move, back, &f->fault));
}

static int64_t allocation(struct fixture *f, const char *sr)
{
	int64_t bytes = -1;

	check_ok(&f->fault,
		object_get_int(f->storage.pool, "SR", sr, "virtual_allocation", &bytes, &f->fault));
	return bytes;
}

/* After a recovery, twice: in that place, and nowhere else. */
static void assert_settled(struct moving *moving, bool moved)
{
	struct fixture *f = moving->fixture;
	const struct storage_place *here = moved ? &moving->move.to : &moving->move.from;
	const struct storage_place *gone = moved ? &moving->move.from : &moving->move.to;
	char *path CLEANUP_FREE = NULL;
	struct resource_row *rows = NULL;
	size_t n = 1;

	check_ok(&f->fault, storage_recover(&f->storage, OWNER, &f->fault));
	check_ok(&f->fault, storage_recover(&f->storage, OWNER, &f->fault));
	check_ok(&f->fault, vdi_path(&f->storage, moving->vdi, &path, &f->fault));
	assert_string_equal(path, here->path);
	assert_int_equal(access(here->path, F_OK), 0);
	assert_int_equal(access(gone->path, F_OK), -1);
	assert_int_equal(allocation(f, here->sr), MIB);
	assert_int_equal(allocation(f, gone->sr), 0);
	check_ok(&f->fault, resource_list(f->storage.agent, OWNER, NULL, &rows, &n, &f->fault));
	assert_int_equal(n, 0);
	free(rows);
}

static void not_begun_it_changes_nothing(void **state)
{
	struct moving moving CLEANUP_MOVING;

	moving_begin(&moving, *state);
	assert_settled(&moving, false);
}

static void without_a_commit_the_new_file_goes(void **state)
{
	struct moving moving CLEANUP_MOVING;

	moving_begin(&moving, *state);
	prepare(&moving);
	assert_settled(&moving, false);
}

static void after_the_commit_the_old_file_goes(void **state)
{
	struct moving moving CLEANUP_MOVING;

	moving_begin(&moving, *state);
	prepare(&moving);
	commit(&moving, false);
	commit(&moving, false);
	assert_settled(&moving, true);
}

static void taken_back_the_new_file_goes(void **state)
{
	struct moving moving CLEANUP_MOVING;

	moving_begin(&moving, *state);
	prepare(&moving);
	commit(&moving, false);
	commit(&moving, true);
	assert_settled(&moving, false);
}

static void a_file_of_somebody_else_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct moving moving CLEANUP_MOVING;

	moving_begin(&moving, f);
	FILE *file = fopen(moving.move.to.path, "w");
	assert_non_null(file);
	fclose(file);
	assert_int_equal(storage_move_prepare(&f->storage, &moving.move, &f->fault), -EEXIST);
	assert_true(fault_is(&f->fault, "SR_BACKEND_FAILURE_43"));
	fault_clear(&f->fault);
	check_ok(&f->fault, storage_recover(&f->storage, OWNER, &f->fault));
	assert_int_equal(access(moving.move.to.path, F_OK), 0);
}

/* --- Copies -------------------------------------------------------------------------------------
 */

static void plan_copy(struct moving *moving, struct fixture *f)
{
	moving_begin(moving, f);
	storage_move_clear(&moving->move);
	check_ok(&f->fault, storage_copy_plan(&f->storage, OWNER, moving->vdi, moving->other,
				    &moving->move, &f->fault));
	check_ok(&f->fault, storage_copy_prepare(&f->storage, &moving->move, 0, &f->fault));
	check_ok(&f->fault, storage_copy_prepare(&f->storage, &moving->move, MIB, &f->fault));
	assert_int_equal(access(moving->move.to.path, F_OK), 0);
}

struct insertion {
	const struct storage_move *move;
	char *vdi;
};

static int insert(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct insertion *insertion = arg;
	struct value *fields CLEANUP_VALUE =
		value_set_string(value_new_struct(), "name_label", "copy");

	return storage_copy_insert(pool, insertion->move, fields, &insertion->vdi, fault);
}

/* Whatever the old file holds, and again after a crash. */
static void an_image_of_its_own_is_empty_and_as_large(void **state)
{
	struct fixture *f = *state;
	struct moving moving CLEANUP_MOVING = {.fixture = f};
	struct value *record CLEANUP_VALUE = value_new_struct();
	char *folder CLEANUP_FREE = xasprintf("%s/other", f->folder);
	struct image_info info;

	if (access(QEMU_IMG, X_OK) < 0)
		skip();
	f->storage.qemu_img = QEMU_IMG;
	assert_int_equal(mkdir(folder, 0700), 0);
	check_ok(&f->fault, fixture_sr_at(f, folder, &moving.other));
	value_set(record, "sm_config",
		value_set_string(value_new_struct(), STORAGE_FORMAT_KEY, "qcow2"));
	value_set_string(record, "SR", fixture_sr(f));
	value_set_int(record, "virtual_size", MIB);
	check_ok(&f->fault, vdi_create(&f->storage, record, &moving.vdi, &f->fault));
	check_ok(&f->fault, storage_copy_plan(&f->storage, OWNER, moving.vdi, moving.other,
				    &moving.move, &f->fault));
	check_ok(&f->fault, storage_copy_plan_image(&moving.move, &f->fault));
	assert_int_equal(moving.move.disk_bytes, MIB);
	check_ok(&f->fault, storage_copy_prepare(&f->storage, &moving.move, MIB, &f->fault));
	assert_int_equal(truncate(moving.move.to.path, 100), 0);
	check_ok(&f->fault, storage_copy_prepare(&f->storage, &moving.move, MIB, &f->fault));
	check_ok(&f->fault, image_inspect(moving.move.to.path, &info, &f->fault));
	assert_int_equal(info.format, IMAGE_QCOW2);
	assert_int_equal(info.virtual_bytes, MIB);
	assert_settled(&moving, false);
}

static void a_copy_without_a_row_goes(void **state)
{
	struct moving moving CLEANUP_MOVING;

	plan_copy(&moving, *state);
	assert_settled(&moving, false);
}

static void both_files_stay_when_both_have_rows(void **state)
{
	struct fixture *f = *state;
	struct moving moving CLEANUP_MOVING;
	char *path CLEANUP_FREE = NULL;

	plan_copy(&moving, f);
	struct insertion insertion = {.move = &moving.move};
	check_ok(&f->fault, pool_db_transaction(f->storage.pool, insert, &insertion, &f->fault));
	char *copy CLEANUP_FREE = insertion.vdi;
	check_ok(&f->fault, storage_recover(&f->storage, OWNER, &f->fault));
	check_ok(&f->fault, vdi_path(&f->storage, copy, &path, &f->fault));
	assert_string_equal(path, moving.move.to.path);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(access(moving.move.from.path, F_OK), 0);
	assert_int_equal(allocation(f, moving.move.from.sr), MIB);
	assert_int_equal(allocation(f, moving.other), MIB);
}

static int replace(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct insertion *insertion = arg;

	return storage_copy_replace(pool, insertion->move, insertion->vdi, fault);
}

static void what_a_replaced_vdi_had_goes(void **state)
{
	struct fixture *f = *state;
	struct moving moving CLEANUP_MOVING;
	char *before CLEANUP_FREE = NULL;
	char *after CLEANUP_FREE = NULL;

	plan_copy(&moving, f);
	struct value *fields CLEANUP_VALUE = value_new_struct();
	value_set_string(fields, "SR", moving.other);
	value_set_int(fields, "virtual_size", 3 * MIB);
	struct insertion insertion = {.move = &moving.move};
	check_ok(&f->fault, vdi_create(&f->storage, fields, &insertion.vdi, &f->fault));
	char *vdi CLEANUP_FREE = insertion.vdi;
	check_ok(&f->fault, vdi_path(&f->storage, vdi, &before, &f->fault));
	check_ok(&f->fault, storage_record_image(&f->storage, OWNER, vdi, &f->fault));
	check_ok(&f->fault, pool_db_transaction(f->storage.pool, replace, &insertion, &f->fault));
	check_ok(&f->fault, storage_recover(&f->storage, OWNER, &f->fault));
	check_ok(&f->fault, vdi_path(&f->storage, vdi, &after, &f->fault));
	assert_string_equal(after, moving.move.to.path);
	assert_int_equal(access(after, F_OK), 0);
	assert_int_equal(access(before, F_OK), -1);
	assert_int_equal(allocation(f, moving.other), MIB);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(not_begun_it_changes_nothing),
		TEST(without_a_commit_the_new_file_goes),
		TEST(after_the_commit_the_old_file_goes),
		TEST(taken_back_the_new_file_goes),
		TEST(a_file_of_somebody_else_is_left_alone),
		TEST(an_image_of_its_own_is_empty_and_as_large),
		TEST(a_copy_without_a_row_goes),
		TEST(both_files_stay_when_both_have_rows),
		TEST(what_a_replaced_vdi_had_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
