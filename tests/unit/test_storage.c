/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/storage_fixture.h"

#include "base/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#define GIB      (INT64_C(1) << 30)
#define QEMU_IMG "/usr/bin/qemu-img"
#define MIB      (INT64_C(1) << 20)

static int64_t int_of(struct fixture *fixture, const char *class, const char *ref, const char *name)
{
	int64_t value = 0;

	check_ok(&fixture->fault,
		object_get_int(fixture->storage.pool, class, ref, name, &value, &fixture->fault));
	return value;
}

/* --- SRs ----------------------------------------------------------------------------------------
 */

static void an_sr_needs_an_existing_absolute_directory(void **state)
{
	struct fixture *f = *state;
	char *ref CLEANUP_FREE = NULL;
	char *file CLEANUP_FREE = xasprintf("%s/pool.db", f->folder);

	check_fault(&f->fault, "SR_BACKEND_FAILURE_94", fixture_sr_at(f, "", &ref));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_91", fixture_sr_at(f, "tmp", &ref));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_91", fixture_sr_at(f, "/nonexistent", &ref));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_91", fixture_sr_at(f, file, &ref));
	assert_int_equal(fixture_count(f, "SR"), 0);
	assert_int_equal(fixture_count(f, "PBD"), 0);
}

static void an_sr_of_another_type_is_refused(void **state)
{
	struct fixture *f = *state;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *config CLEANUP_VALUE = value_new_struct();
	char *ref CLEANUP_FREE = NULL;

	value_set_string(config, "location", f->directory);
	value_set_string(fields, "type", "nfs");
	assert_true(sr_create(&f->storage, config, fields, &ref, &f->fault) < 0);
	assert_string_equal(f->fault.code, "SR_UNKNOWN_DRIVER");
	assert_string_equal(f->fault.params[0], "nfs");
}

/* tgtd would export another file: it cuts a path at the comma. */
static void a_path_that_tgtd_would_cut_is_refused(void **state)
{
	static const char *const names[] = {"a,b", "a\nb",
		"a\x7f"
		"b",
		"a\xff"};
	struct fixture *f = *state;
	char *ref CLEANUP_FREE = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", f->folder, names[i]);
		assert_int_equal(mkdir(path, 0700), 0);
		check_fault(&f->fault, "SR_BACKEND_FAILURE_2", fixture_sr_at(f, path, &ref));
	}
}

static void odd_but_harmless_paths_are_taken(void **state)
{
	static const char *const names[] = {"a \"b\" 'c'", "größe", "a\\b;$(c)"};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", f->folder, names[i]);
		char *ref CLEANUP_FREE = NULL;
		char *location CLEANUP_FREE = NULL;
		assert_int_equal(mkdir(path, 0700), 0);
		check_ok(&f->fault, fixture_sr_at(f, path, &ref));
		check_ok(&f->fault, sr_location(&f->storage, ref, &location, &f->fault));
		assert_string_equal(location, path);
	}
}

static void a_directory_serves_one_sr_under_any_name(void **state)
{
	struct fixture *f = *state;
	char *link CLEANUP_FREE = xasprintf("%s/link", f->folder);
	char *slashes CLEANUP_FREE = xasprintf("%s/./images//", f->folder);
	char *first CLEANUP_FREE = NULL;
	char *second CLEANUP_FREE = NULL;
	char *location CLEANUP_FREE = NULL;

	assert_int_equal(symlink(f->directory, link), 0);
	check_ok(&f->fault, fixture_sr_at(f, link, &first));
	check_ok(&f->fault, sr_location(&f->storage, first, &location, &f->fault));
	assert_string_equal(location, f->directory);
	check_fault(&f->fault, "SR_BACKEND_FAILURE_42", fixture_sr_at(f, f->directory, &second));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_42", fixture_sr_at(f, link, &second));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_42", fixture_sr_at(f, slashes, &second));
}

static void free_space_is_size_less_utilisation(void **state)
{
	struct fixture *f = *state;
	const char *sr = fixture_sr(f);
	char *a CLEANUP_FREE = fixture_new_vdi(f, GIB);
	char *b CLEANUP_FREE = fixture_new_vdi(f, MIB);
	struct statvfs before, after;

	assert_int_equal(statvfs(f->directory, &before), 0);
	check_ok(&f->fault, sr_refresh(&f->storage, sr, &f->fault));
	assert_int_equal(statvfs(f->directory, &after), 0);
	int64_t size = int_of(f, "SR", sr, "physical_size");
	int64_t free_bytes = size - int_of(f, "SR", sr, "physical_utilisation");
	int64_t a_free = (int64_t)(before.f_bavail * before.f_frsize);
	int64_t b_free = (int64_t)(after.f_bavail * after.f_frsize);
	assert_int_equal(size, (int64_t)(after.f_blocks * after.f_frsize));
	/* Others write to this file system meanwhile. */
	assert_in_range(
		free_bytes, MIN(a_free, b_free) - 256 * MIB, MAX(a_free, b_free) + 256 * MIB);
	assert_int_equal(int_of(f, "SR", sr, "virtual_allocation"), GIB + MIB);
}

static void an_unplugged_sr_is_not_attached(void **state)
{
	struct fixture *f = *state;
	const char *sr = fixture_sr(f);
	struct value *pbds CLEANUP_VALUE = NULL;
	struct value *off CLEANUP_VALUE = value_new_bool(false);
	char *path CLEANUP_FREE = NULL;

	check_ok(&f->fault, object_get_all(f->storage.pool, "PBD", &pbds, &f->fault));
	check_ok(&f->fault, object_set_field(f->storage.pool, "PBD", pbds->array.items[0]->string,
				    "currently_attached", off, &f->fault));
	check_fault(&f->fault, "SR_NOT_ATTACHED", sr_location(&f->storage, sr, &path, &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID",
		sr_location(&f->storage, "OpaqueRef:none", &path, &f->fault));
}

static void forgetting_keeps_the_files_and_their_uuids(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	struct value *before CLEANUP_VALUE = fixture_record(f, "VDI", vdi);
	char *again CLEANUP_FREE = NULL;
	char *found CLEANUP_FREE = NULL;

	check_ok(&f->fault, sr_forget(&f->storage, f->sr, &f->fault));
	assert_int_equal(
		fixture_count(f, "SR") + fixture_count(f, "PBD") + fixture_count(f, "VDI"), 0);
	assert_int_equal(fixture_count_files(f), 1);
	check_ok(&f->fault, fixture_sr_at(f, f->directory, &again));
	check_ok(&f->fault, sr_scan(&f->storage, again, &f->fault));
	check_ok(&f->fault, object_get_by_uuid(f->storage.pool, "VDI",
				    value_find_string(before, "uuid", ""), &found, &f->fault));
	assert_int_equal(int_of(f, "VDI", found, "virtual_size"), MIB);
}

static void an_sr_in_use_is_neither_forgotten_nor_destroyed(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *vbd CLEANUP_FREE = fixture_vbd(f, vdi, false);

	check_fault(&f->fault, "VDI_IN_USE", sr_forget(&f->storage, f->sr, &f->fault));
	check_fault(&f->fault, "SR_NOT_EMPTY", sr_destroy(&f->storage, f->sr, &f->fault));
	check_ok(&f->fault, object_destroy(f->storage.pool, "VBD", vbd, &f->fault));
	check_ok(&f->fault, vdi_destroy(&f->storage, vdi, &f->fault));
	check_ok(&f->fault, sr_destroy(&f->storage, f->sr, &f->fault));
	check_fault(&f->fault, "HANDLE_INVALID", sr_destroy(&f->storage, f->sr, &f->fault));
	assert_int_equal(access(f->directory, F_OK), 0);
}

/* --- VDIs ---------------------------------------------------------------------------------------
 */

static void a_vdi_is_a_row_and_a_sparse_file_of_its_size(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, 10 * GIB + 1);
	struct value *record CLEANUP_VALUE = fixture_record(f, "VDI", vdi);
	char *path CLEANUP_FREE = NULL;
	struct stat st;

	check_ok(&f->fault, vdi_path(&f->storage, vdi, &path, &f->fault));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 10 * GIB + 512);
	assert_true(st.st_blocks < 1024);
	assert_int_equal(st.st_mode & 0777, 0600);
	char *name CLEANUP_FREE = xasprintf("%s.raw", value_find_string(record, "uuid", ""));
	assert_string_equal(value_find_string(record, "location", ""), name);
	assert_int_equal(value_find_int(record, "virtual_size", 0), 10 * GIB + 512);
	assert_true(value_find_bool(record, "managed", false));
	assert_string_equal(value_find_string(record, "name_label", ""), "disk");
	assert_int_equal(fixture_count_journal(f), 0);
}

static void a_size_must_be_a_positive_number(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = NULL;

	check_fault(&f->fault, "INVALID_VALUE", fixture_vdi(f, NULL, &vdi));
	check_fault(&f->fault, "INVALID_VALUE", fixture_vdi(f, value_new_int(0), &vdi));
	check_fault(&f->fault, "INVALID_VALUE", fixture_vdi(f, value_new_int(-512), &vdi));
	check_fault(&f->fault, "INVALID_VALUE", fixture_vdi(f, value_new_int(INT64_MAX), &vdi));
	check_fault(&f->fault, "INVALID_VALUE", fixture_vdi(f, value_new_string("1G"), &vdi));
	check_fault(&f->fault, "INVALID_VALUE", fixture_vdi(f, value_new_string(""), &vdi));
	assert_int_equal(fixture_count_files(f), 0);
	/* XML-RPC clients write 64-bit integers as text. */
	check_ok(&f->fault, fixture_vdi(f, value_new_string("1048576"), &vdi));
	assert_int_equal(int_of(f, "VDI", vdi, "virtual_size"), MIB);
}

static void a_size_beyond_the_file_system_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = NULL;
	int r = fixture_vdi(f, value_new_int(INT64_MAX - 1023), &vdi);

	/* Some file systems do hold 8 EiB. */
	if (r == 0)
		return;
	assert_string_equal(f->fault.code, "SR_BACKEND_FAILURE_79");
	assert_int_equal(fixture_count_files(f), 0);
	assert_int_equal(fixture_count_journal(f), 0);
	assert_int_equal(fixture_count(f, "VDI"), 0);
}

/* Clients make a disk from the record of another one. */
static void a_whole_record_gives_a_disk_of_its_own(void **state)
{
	struct fixture *f = *state;
	char *first CLEANUP_FREE = fixture_new_vdi(f, MIB);
	struct value *record CLEANUP_VALUE = fixture_record(f, "VDI", first);
	char *second CLEANUP_FREE = NULL;

	check_ok(&f->fault, vdi_create(&f->storage, record, &second, &f->fault));
	struct value *other CLEANUP_VALUE = fixture_record(f, "VDI", second);
	assert_string_not_equal(
		value_find_string(record, "uuid", ""), value_find_string(other, "uuid", ""));
	assert_string_not_equal(value_find_string(record, "location", ""),
		value_find_string(other, "location", ""));
	assert_int_equal(fixture_count_files(f), 2);
}

static void a_disk_for_no_sr_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct value *record CLEANUP_VALUE = value_new_struct();
	char *vdi CLEANUP_FREE = NULL;

	fixture_sr(f);
	value_set_int(record, "virtual_size", MIB);
	check_fault(&f->fault, "HANDLE_INVALID", vdi_create(&f->storage, record, &vdi, &f->fault));
	value_set_string(record, "SR", f->sr);
	value_set_string(record, "type", "no such type");
	assert_true(vdi_create(&f->storage, record, &vdi, &f->fault) < 0);
	assert_int_equal(fixture_count_files(f), 0);
	assert_int_equal(fixture_count_journal(f), 0);
}

static void a_destroyed_disk_leaves_neither_file_nor_vbd(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *vbd CLEANUP_FREE = fixture_vbd(f, vdi, false);

	check_ok(&f->fault, vdi_destroy(&f->storage, vdi, &f->fault));
	assert_int_equal(fixture_count(f, "VDI") + fixture_count(f, "VBD"), 0);
	assert_int_equal(fixture_count_files(f), 0);
	assert_int_equal(fixture_count_journal(f), 0);
	assert_int_equal(int_of(f, "SR", f->sr, "virtual_allocation"), 0);
	check_fault(&f->fault, "HANDLE_INVALID", vdi_destroy(&f->storage, vdi, &f->fault));
}

static void a_disk_in_use_is_neither_destroyed_nor_resized(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *vbd CLEANUP_FREE = fixture_vbd(f, vdi, true);
	struct value *off CLEANUP_VALUE = value_new_bool(false);
	struct value *record CLEANUP_VALUE = fixture_record(f, "VBD", vbd);
	const char *vm = value_find_string(record, "VM", "");

	check_fault(&f->fault, "VDI_IN_USE", vdi_destroy(&f->storage, vdi, &f->fault));
	check_fault(&f->fault, "VDI_IN_USE", vdi_resize(&f->storage, vdi, 2 * MIB, &f->fault));
	check_ok(&f->fault, object_set_field(f->storage.pool, "VBD", vbd, "currently_attached", off,
				    &f->fault));
	check_ok(&f->fault, object_map_set(f->storage.pool, "VM", vm, "current_operations",
				    "OpaqueRef:task", "migrate_send", &f->fault));
	check_fault(&f->fault, "VDI_IN_USE", vdi_destroy(&f->storage, vdi, &f->fault));
	check_ok(&f->fault, object_map_remove(f->storage.pool, "VM", vm, "current_operations",
				    "OpaqueRef:task", &f->fault));
	check_ok(&f->fault, object_map_set(f->storage.pool, "VDI", vdi, "current_operations",
				    "OpaqueRef:task", "mirror", &f->fault));
	check_fault(&f->fault, "VDI_IN_USE", vdi_destroy(&f->storage, vdi, &f->fault));
	assert_int_equal(fixture_count_files(f), 1);
	assert_int_equal(fixture_count_journal(f), 0);
}

static void a_disk_grows_and_does_not_shrink(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *path CLEANUP_FREE = NULL;
	struct stat st;

	check_ok(&f->fault, vdi_resize(&f->storage, vdi, 2 * MIB - 1, &f->fault));
	check_ok(&f->fault, vdi_resize(&f->storage, vdi, 2 * MIB, &f->fault));
	check_fault(
		&f->fault, "SR_BACKEND_FAILURE_79", vdi_resize(&f->storage, vdi, MIB, &f->fault));
	check_fault(&f->fault, "INVALID_VALUE", vdi_resize(&f->storage, vdi, -1, &f->fault));
	check_ok(&f->fault, vdi_path(&f->storage, vdi, &path, &f->fault));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 2 * MIB);
	assert_int_equal(int_of(f, "VDI", vdi, "virtual_size"), 2 * MIB);
	assert_int_equal(int_of(f, "SR", f->sr, "virtual_allocation"), 2 * MIB);
}

static void a_missing_file_is_said_so(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *path CLEANUP_FREE = NULL;
	char *none CLEANUP_FREE = NULL;

	check_ok(&f->fault, vdi_path(&f->storage, vdi, &path, &f->fault));
	assert_int_equal(unlink(path), 0);
	assert_true(vdi_path(&f->storage, vdi, &none, &f->fault) < 0);
	assert_string_equal(f->fault.code, "VDI_MISSING");
	assert_string_equal(f->fault.params[0], f->sr);
	assert_string_equal(f->fault.params[1], vdi);
	fault_clear(&f->fault);
	check_fault(&f->fault, "VDI_MISSING", vdi_resize(&f->storage, vdi, 2 * MIB, &f->fault));
	/* It can still be destroyed. */
	check_ok(&f->fault, vdi_destroy(&f->storage, vdi, &f->fault));
}

static void a_symbolic_link_is_not_followed(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *path CLEANUP_FREE = NULL;
	char *none CLEANUP_FREE = NULL;

	check_ok(&f->fault, vdi_path(&f->storage, vdi, &path, &f->fault));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	check_fault(
		&f->fault, "SR_BACKEND_FAILURE_46", vdi_path(&f->storage, vdi, &none, &f->fault));
}

/* --- Formats ------------------------------------------------------------------------------------
 */

static int make_format(struct fixture *f, const char *format, char **ret_vdi)
{
	struct value *record CLEANUP_VALUE = value_new_struct();
	struct value *sm_config = value_new_struct();

	value_set_string(sm_config, STORAGE_FORMAT_KEY, format);
	value_set(record, "sm_config", sm_config);
	value_set_string(record, "SR", fixture_sr(f));
	value_set_int(record, "virtual_size", MIB);
	return vdi_create(&f->storage, record, ret_vdi, &f->fault);
}

static void a_qcow2_disk_has_the_size_of_what_is_in_it(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	struct stat st;

	if (access(QEMU_IMG, X_OK) < 0)
		skip();
	f->storage.qemu_img = QEMU_IMG;
	check_ok(&f->fault, make_format(f, "qcow2", &vdi));
	check_ok(&f->fault, vdi_path(&f->storage, vdi, &path, &f->fault));
	assert_string_equal(path + strlen(path) - 6, ".qcow2");
	check_ok(&f->fault, vdi_resize(&f->storage, vdi, 3 * MIB, &f->fault));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_79",
		vdi_resize(&f->storage, vdi, 2 * MIB, &f->fault));
	check_ok(&f->fault, sr_scan(&f->storage, f->sr, &f->fault));
	struct value *record CLEANUP_VALUE = fixture_record(f, "VDI", vdi);
	assert_int_equal(value_find_int(record, "virtual_size", 0), 3 * MIB);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(
		value_find_int(record, "physical_utilisation", 0), (int64_t)st.st_blocks * 512);
	/* Cut short by somebody: it is not missing, and is not used. */
	assert_int_equal(truncate(path, 60), 0);
	char *again CLEANUP_FREE = NULL;
	check_fault(
		&f->fault, "SR_BACKEND_FAILURE_46", vdi_path(&f->storage, vdi, &again, &f->fault));
	check_ok(&f->fault, sr_scan(&f->storage, f->sr, &f->fault));
	check_ok(&f->fault, vdi_destroy(&f->storage, vdi, &f->fault));
	assert_int_equal(fixture_count_files(f), 0);
	assert_int_equal(fixture_count_journal(f), 0);
}

static void a_format_that_cannot_be_made_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = NULL;

	check_fault(&f->fault, "INVALID_VALUE", make_format(f, "vhd", &vdi));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_78", make_format(f, "qcow2", &vdi));
	f->storage.qemu_img = "/nonexistent/qemu-img";
	check_fault(&f->fault, "SR_BACKEND_FAILURE_78", make_format(f, "qcow2", &vdi));
	assert_int_equal(fixture_count(f, "VDI"), 0);
	assert_int_equal(fixture_count_files(f), 0);
	assert_int_equal(fixture_count_journal(f), 0);
}

/* --- A full file system
 * -----------------------------------------------------------------------------
 */

static void a_full_file_system_is_said_so_and_nothing_is_left(void **state)
{
	struct fixture *f = *state;
	char *vdi CLEANUP_FREE = NULL;
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = uuid_new();

	/* Room for the directory itself and 1 MiB, but for no file. */
	if (mount("none", f->directory, "tmpfs", 0, "size=1m,nr_inodes=1") < 0)
		skip();
	fixture_sr(f);
	int r = fixture_vdi(f, value_new_int(MIB), &vdi);
	char *code CLEANUP_FREE = xstrdup(f->fault.code);
	size_t n_files = fixture_count_files(f);
	int small = storage_prepare_disk(
		&f->storage, "m", f->sr, uuid, 2 * MIB, 2 * MIB, &location, &path, &f->fault);
	umount(f->directory);
	assert_true(r < 0);
	assert_string_equal(code, "SR_BACKEND_FAILURE_44");
	assert_int_equal(n_files, 0);
	assert_true(small < 0);
	assert_string_equal(f->fault.code, "SR_BACKEND_FAILURE_44");
	assert_int_equal(fixture_count(f, "VDI"), 0);
	assert_int_equal(fixture_count_journal(f), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(an_sr_needs_an_existing_absolute_directory),
		T(an_sr_of_another_type_is_refused),
		T(a_path_that_tgtd_would_cut_is_refused),
		T(odd_but_harmless_paths_are_taken),
		T(a_directory_serves_one_sr_under_any_name),
		T(free_space_is_size_less_utilisation),
		T(an_unplugged_sr_is_not_attached),
		T(forgetting_keeps_the_files_and_their_uuids),
		T(an_sr_in_use_is_neither_forgotten_nor_destroyed),
		T(a_vdi_is_a_row_and_a_sparse_file_of_its_size),
		T(a_size_must_be_a_positive_number),
		T(a_size_beyond_the_file_system_leaves_nothing),
		T(a_whole_record_gives_a_disk_of_its_own),
		T(a_disk_for_no_sr_leaves_nothing),
		T(a_destroyed_disk_leaves_neither_file_nor_vbd),
		T(a_disk_in_use_is_neither_destroyed_nor_resized),
		T(a_disk_grows_and_does_not_shrink),
		T(a_missing_file_is_said_so),
		T(a_symbolic_link_is_not_followed),
		T(a_qcow2_disk_has_the_size_of_what_is_in_it),
		T(a_format_that_cannot_be_made_leaves_nothing),
		T(a_full_file_system_is_said_so_and_nothing_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
