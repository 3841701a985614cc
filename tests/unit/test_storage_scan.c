/* SPDX-License-Identifier: Apache-2.0 */
/* Scans, incoming disks, and what a crash leaves. */
#include "tests/lib/storage_fixture.h"

#include "base/uuid.h"

#include <errno.h>

#define MIB  (INT64_C(1) << 20)
#define UUID "0123abcd-0000-4000-8000-000000000001"
#define M1   "aaaaaaaa-0000-4000-8000-000000000001"
#define M2   "aaaaaaaa-0000-4000-8000-000000000002"

static const struct value *skipped(
	struct fixture *f, const char *name, struct value **ret_sm_config)
{
	struct value *record CLEANUP_VALUE = fixture_record(f, "SR", f->sr);
	char *key CLEANUP_FREE = xasprintf("skipped:%s", name);

	value_free(*ret_sm_config);
	*ret_sm_config = value_copy(value_find(record, "sm_config"));
	return value_find(*ret_sm_config, key);
}

static void scan(struct fixture *f)
{
	check_ok(&f->fault, sr_scan(&f->storage, fixture_sr(f), &f->fault));
}

/* --- sr_scan ------------------------------------------------------------------------------------
 */

static void images_that_no_vdi_names_are_taken_in_once(void **state)
{
	struct fixture *f = *state;
	struct value *vdis CLEANUP_VALUE = NULL;

	fixture_file(f, "debian-12.raw", MIB);
	fixture_file(f, "Old_Disk.img", 2 * MIB);
	fixture_file(f, UUID ".raw", 512);
	scan(f);
	scan(f);
	assert_int_equal(fixture_count(f, "VDI"), 3);
	check_ok(&f->fault,
		object_find(f->storage.pool, "VDI", "location", "debian-12.raw", &vdis, &f->fault));
	struct value *vdi CLEANUP_VALUE = fixture_record(f, "VDI", vdis->array.items[0]->string);
	assert_int_equal(value_find_int(vdi, "virtual_size", 0), MIB);
	assert_string_equal(value_find_string(vdi, "name_label", ""), "debian-12.raw");
	struct value *sr CLEANUP_VALUE = fixture_record(f, "SR", f->sr);
	assert_int_equal(value_find_int(sr, "virtual_allocation", 0), 3 * MIB + 512);
	char *ref CLEANUP_FREE = NULL;
	check_ok(&f->fault, object_get_by_uuid(f->storage.pool, "VDI", UUID, &ref, &f->fault));
}

static void what_cannot_be_taken_in_is_said_with_its_reason(void **state)
{
	struct fixture *f = *state;
	struct value *config CLEANUP_VALUE = NULL;
	char *link CLEANUP_FREE = xasprintf("%s/link.raw", f->directory);

	fixture_file(f, "odd.raw", 1000);
	fixture_file(f, "empty.img", 0);
	fixture_file(f, "a b,c.raw", 512);
	fixture_file(f, "caf\xff.raw", 512);
	fixture_file(f, "disk.vhd", 512);
	fixture_file(f, ".hidden.raw", 512);
	assert_int_equal(symlink("/etc/passwd", link), 0);
	scan(f);
	assert_int_equal(fixture_count(f, "VDI"), 0);
	assert_non_null(strstr(value_string(skipped(f, "odd.raw", &config), ""), "512"));
	assert_non_null(strstr(value_string(skipped(f, "empty.img", &config), ""), "empty"));
	assert_non_null(strstr(value_string(skipped(f, "a b,c.raw", &config), ""), "characters"));
	assert_non_null(
		strstr(value_string(skipped(f, "caf\\xff.raw", &config), ""), "characters"));
	assert_non_null(strstr(value_string(skipped(f, "disk.vhd", &config), ""), ".raw"));
	assert_non_null(strstr(value_string(skipped(f, "link.raw", &config), ""), "regular"));
	assert_int_equal(config->record.n_members, 6);

	/* What was put right is no longer said. */
	fixture_file(f, "odd.raw", 1024);
	check_ok(&f->fault,
		object_map_set(f->storage.pool, "SR", f->sr, "sm_config", "mine", "1", &f->fault));
	scan(f);
	assert_null(skipped(f, "odd.raw", &config));
	assert_string_equal(value_find_string(config, "mine", ""), "1");
	assert_int_equal(config->record.n_members, 6);
	assert_int_equal(fixture_count(f, "VDI"), 1);
}

static void many_odd_files_do_not_swell_the_record(void **state)
{
	struct fixture *f = *state;
	struct value *config CLEANUP_VALUE = NULL;

	for (int i = 0; i < 100; i++) {
		char *name CLEANUP_FREE = xasprintf("note%d.txt", i);
		fixture_file(f, name, 10);
	}
	scan(f);
	assert_string_equal(value_string(skipped(f, "...", &config), ""), "and 68 more");
	assert_int_equal(config->record.n_members, 33);
}

static void a_file_that_is_gone_and_comes_back_is_missing_meanwhile(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *path CLEANUP_FREE = NULL;
	char *away CLEANUP_FREE = xasprintf("%s/away", f->folder);
	bool missing = false;

	check_ok(&f->fault, vdi_path(&f->storage, vdi, &path, &f->fault));
	assert_int_equal(rename(path, away), 0);
	scan(f);
	check_ok(&f->fault,
		object_get_bool(f->storage.pool, "VDI", vdi, "missing", &missing, &f->fault));
	assert_true(missing);
	assert_int_equal(rename(away, path), 0);
	assert_int_equal(truncate(path, 2 * MIB), 0);
	scan(f);
	struct value *record CLEANUP_VALUE = fixture_record(f, "VDI", vdi);
	assert_false(value_find_bool(record, "missing", true));
	assert_int_equal(value_find_int(record, "virtual_size", 0), 2 * MIB);
	assert_int_equal(fixture_count(f, "VDI"), 1);
}

static void a_file_in_the_journal_is_not_taken_in(void **state)
{
	struct fixture *f = *state;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;

	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, fixture_sr(f), UUID, MIB, 0,
				    &location, &path, &f->fault));
	scan(f);
	assert_int_equal(fixture_count(f, "VDI"), 0);
	assert_int_equal(fixture_count_files(f), 1);
}

/* --- storage_prepare_disk, storage_recover
 * --------------------------------------------------------------
 */

static void a_disk_prepared_twice_is_one_disk(void **state)
{
	struct fixture *f = *state;
	char *location[3] = {NULL};
	char *path[3] = {NULL};

	fixture_sr(f);
	for (int i = 0; i < 3; i++) {
		check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, f->sr, UUID, MIB, MIB,
					    &location[i], &path[i], &f->fault));
		assert_string_equal(location[i], UUID ".raw");
		assert_string_equal(path[i], path[0]);
		if (i == 1)
			assert_int_equal(unlink(path[i]), 0);
		else
			assert_int_equal(access(path[i], F_OK), 0);
	}
	assert_int_equal(fixture_count_journal(f), 1);
	check_fault(
		&f->fault, "OTHER_OPERATION_IN_PROGRESS", sr_forget(&f->storage, f->sr, &f->fault));
	for (int i = 0; i < 3; i++) {
		free(location[i]);
		free(path[i]);
	}
}

static void what_was_written_survives_a_second_preparation(void **state)
{
	struct fixture *f = *state;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *location2 CLEANUP_FREE = NULL;
	char *path2 CLEANUP_FREE = NULL;

	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, fixture_sr(f), UUID, MIB, MIB,
				    &location, &path, &f->fault));
	FILE *file CLEANUP_FCLOSE = fopen(path, "r+");
	assert_non_null(file);
	assert_true(fputs("data", file) >= 0 && fflush(file) == 0);
	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, f->sr, UUID, MIB, MIB, &location2,
				    &path2, &f->fault));
	char found[5] = "";
	FILE *again CLEANUP_FCLOSE = fopen(path2, "r");
	assert_non_null(again);
	assert_int_equal(fread(found, 1, 4, again), 4);
	assert_string_equal(found, "data");
}

static void a_file_of_somebody_else_is_not_touched(void **state)
{
	struct fixture *f = *state;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	struct value *record CLEANUP_VALUE = fixture_record(f, "VDI", vdi);
	const char *uuid = value_find_string(record, "uuid", "");

	fixture_file(f, UUID ".raw", 512);
	check_fault(&f->fault, "SR_BACKEND_FAILURE_43",
		storage_prepare_disk(
			&f->storage, M1, f->sr, UUID, MIB, 0, &location, &path, &f->fault));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_43",
		storage_prepare_disk(
			&f->storage, M1, f->sr, uuid, MIB, 0, &location, &path, &f->fault));
	check_fault(&f->fault, "UUID_INVALID",
		storage_prepare_disk(
			&f->storage, M1, f->sr, "../x", MIB, 0, &location, &path, &f->fault));
	check_ok(&f->fault, storage_recover(&f->storage, NULL, &f->fault));
	assert_int_equal(fixture_count_files(f), 2);
	assert_int_equal(fixture_count_journal(f), 0);
}

static void two_migrations_do_not_share_a_disk(void **state)
{
	struct fixture *f = *state;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *none CLEANUP_FREE = NULL;

	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, fixture_sr(f), UUID, MIB, 0,
				    &location, &path, &f->fault));
	check_fault(&f->fault, "OTHER_OPERATION_IN_PROGRESS",
		storage_prepare_disk(
			&f->storage, M2, f->sr, UUID, MIB, 0, &none, &none, &f->fault));
}

/* Each would fit alone; statvfs still calls the space free that the first one will fill. */
static void space_promised_to_one_disk_is_not_promised_again(void **state)
{
	struct fixture *f = *state;
	struct value *sr CLEANUP_VALUE = fixture_record(f, "SR", fixture_sr(f));
	int64_t free_bytes = value_find_int(sr, "physical_size", 0) -
			     value_find_int(sr, "physical_utilisation", 0);
	uint64_t most = (uint64_t)free_bytes / 10 * 6;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *none CLEANUP_FREE = NULL;
	char *other CLEANUP_FREE = uuid_new();

	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, f->sr, UUID, MIB, most, &location,
				    &path, &f->fault));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_44",
		storage_prepare_disk(
			&f->storage, M2, f->sr, other, MIB, most, &none, &none, &f->fault));
	assert_int_equal(fixture_count_files(f), 1);
	check_ok(&f->fault, storage_recover(&f->storage, M1, &f->fault));
	free(TAKE_PTR(location));
	free(TAKE_PTR(path));
	check_ok(&f->fault, storage_prepare_disk(&f->storage, M2, f->sr, other, MIB, most,
				    &location, &path, &f->fault));
}

static void recovery_keeps_a_file_if_and_only_if_a_vdi_names_it(void **state)
{
	struct fixture *f = *state;
	char *kept CLEANUP_FREE = uuid_new();
	char *dropped CLEANUP_FREE = uuid_new();
	char *kept_at CLEANUP_FREE = NULL;
	char *dropped_at CLEANUP_FREE = NULL;
	char *kept_path CLEANUP_FREE = NULL;
	char *dropped_path CLEANUP_FREE = NULL;
	struct value *fields = value_new_struct();

	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, fixture_sr(f), kept, MIB, 0,
				    &kept_at, &kept_path, &f->fault));
	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, f->sr, dropped, MIB, 0,
				    &dropped_at, &dropped_path, &f->fault));
	value_set_string(fields, "SR", f->sr);
	value_set_string(fields, "location", kept_at);
	char *vdi CLEANUP_FREE = fixture_object(f, "VDI", fields);

	check_ok(&f->fault, storage_recover(&f->storage, "", &f->fault));
	check_ok(&f->fault, storage_recover(&f->storage, M2, &f->fault));
	assert_int_equal(fixture_count_files(f), 2); /* not theirs */
	check_ok(&f->fault, storage_recover(&f->storage, M1, &f->fault));
	assert_int_equal(access(kept_path, F_OK), 0);
	assert_int_equal(access(dropped_path, F_OK), -1);
	assert_int_equal(fixture_count_journal(f), 0);
}

/* An SR that is not mounted: what it holds is not known, so nothing is forgotten. */
static void recovery_waits_for_a_directory_that_is_away(void **state)
{
	struct fixture *f = *state;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *away CLEANUP_FREE = xasprintf("%s/away", f->folder);

	check_ok(&f->fault, storage_prepare_disk(&f->storage, M1, fixture_sr(f), UUID, MIB, 0,
				    &location, &path, &f->fault));
	assert_int_equal(rename(f->directory, away), 0);
	check_fault(
		&f->fault, "SR_BACKEND_FAILURE_47", storage_recover(&f->storage, M1, &f->fault));
	assert_int_equal(fixture_count_journal(f), 1);
	assert_int_equal(rename(away, f->directory), 0);
	check_ok(&f->fault, storage_recover(&f->storage, M1, &f->fault));
	assert_int_equal(fixture_count_files(f), 0);
	assert_int_equal(fixture_count_journal(f), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(images_that_no_vdi_names_are_taken_in_once),
		T(what_cannot_be_taken_in_is_said_with_its_reason),
		T(many_odd_files_do_not_swell_the_record),
		T(a_file_that_is_gone_and_comes_back_is_missing_meanwhile),
		T(a_file_in_the_journal_is_not_taken_in),
		T(a_disk_prepared_twice_is_one_disk),
		T(what_was_written_survives_a_second_preparation),
		T(a_file_of_somebody_else_is_not_touched),
		T(two_migrations_do_not_share_a_disk),
		T(space_promised_to_one_disk_is_not_promised_again),
		T(recovery_keeps_a_file_if_and_only_if_a_vdi_names_it),
		T(recovery_waits_for_a_directory_that_is_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
