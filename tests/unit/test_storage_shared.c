/* SPDX-License-Identifier: Apache-2.0 */
/* One directory, one database, two hosts: what one works on is no orphan to the other. */
#include "tests/lib/storage_fixture.h"

#include "agent/storage/private.h"
#include "base/uuid.h"

#include <fcntl.h>

#define MIB (INT64_C(1) << 20)

/* The fixture's host and another one, with a journal of its own. */
struct hosts {
	struct fixture *f;
	struct storage other;
	char *sr;
	char *uuid;
};

static void hosts_open(struct hosts *hosts, void **state)
{
	struct fixture *f = hosts->f = *state;
	struct value *host CLEANUP_VALUE = value_new_struct();
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *config CLEANUP_VALUE = value_new_struct();
	char *path CLEANUP_FREE = xasprintf("%s/other.db", f->folder);
	char *ref = NULL;

	hosts->other.pool = f->storage.pool;
	check_ok(&f->fault, agent_db_open(path, &hosts->other.agent, &f->fault));
	check_ok(&f->fault, object_create(f->storage.pool, "host", host, &ref, &f->fault));
	hosts->other.host_ref = ref;
	value_set_string(fields, "type", "file");
	value_set_bool(fields, "shared", true);
	value_set_string(config, "location", f->directory);
	check_ok(&f->fault, sr_create(&f->storage, config, fields, &hosts->sr, &f->fault));
	check_ok(&f->fault, object_get_string(f->storage.pool, "SR", hosts->sr, "uuid",
				    &hosts->uuid, &f->fault));
}

static void hosts_close(struct hosts *hosts)
{
	agent_db_close(hosts->other.agent);
	free((char *)hosts->other.host_ref);
	free(hosts->sr);
	free(hosts->uuid);
}

#define CLEANUP_HOSTS CLEANUP(hosts_close)

/* Unplugged. */
static char *new_pbd(struct hosts *hosts, const char *dir)
{
	struct value *fields = value_new_struct();
	struct value *config = value_new_struct();

	value_set_string(config, "location", dir);
	value_set_string(fields, "SR", hosts->sr);
	value_set_string(fields, "host", hosts->other.host_ref);
	value_set(fields, "device_config", config);
	return fixture_object(hosts->f, "PBD", fields);
}

static void plug_other(struct hosts *hosts)
{
	char *pbd CLEANUP_FREE = new_pbd(hosts, hosts->f->directory);

	check_ok(&hosts->f->fault, sr_plug(&hosts->other, pbd, &hosts->f->fault));
}

static char *in_directory(struct fixture *f, const char *name)
{
	return xasprintf("%s/%s", f->directory, name);
}

static void write_text(const char *path, const char *text)
{
	FILE *file CLEANUP_FCLOSE = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

static void assert_says(struct fixture *f, const char *what)
{
	if (!strstr(f->fault.params[1], what))
		fail_msg("\"%s\" does not say \"%s\"", f->fault.params[1], what);
	fault_clear(&f->fault);
}

/* --- Marks --------------------------------------------------------------------------------------
 */

static void another_directory_is_refused(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	char *empty CLEANUP_FREE = xasprintf("%s/empty", f->folder);
	char *mark CLEANUP_FREE = xasprintf("%s/.ferry-sr", empty);
	assert_int_equal(mkdir(empty, 0700), 0);
	char *pbd CLEANUP_FREE = new_pbd(&hosts, empty);

	assert_true(sr_plug(&hosts.other, pbd, &f->fault) < 0);
	assert_string_equal(f->fault.code, "SR_BACKEND_FAILURE_47");
	assert_says(f, hosts.uuid);
	write_text(mark, "7cbb5b5c-0f4c-4c9a-8f3a-0a8a39c2a7b1\n");
	assert_true(sr_plug(&hosts.other, pbd, &f->fault) < 0);
	assert_says(f, "7cbb5b5c-0f4c-4c9a-8f3a-0a8a39c2a7b1");
	assert_int_equal(sr_is_plugged(f->storage.pool, hosts.sr, hosts.other.host_ref, NULL), 0);
	assert_int_equal(unlink(mark), 0);
	assert_int_equal(rmdir(empty), 0);
	/* Under another name it is the same directory. */
	assert_int_equal(symlink(f->directory, empty), 0);
	check_ok(&f->fault, sr_plug(&hosts.other, pbd, &f->fault));
	assert_int_equal(sr_is_plugged(f->storage.pool, hosts.sr, hosts.other.host_ref, NULL), 1);
}

/* A file system that was unmounted leaves the directory below it: nothing is made or missed there.
 */
static void a_directory_that_loses_its_mark_is_left_alone(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	f->sr = xstrdup(hosts.sr);
	char *vdi CLEANUP_FREE = fixture_new_vdi(f, MIB);
	char *other CLEANUP_FREE = NULL;
	char *away CLEANUP_FREE = xasprintf("%s/away", f->folder);

	assert_int_equal(rename(f->directory, away), 0);
	assert_int_equal(mkdir(f->directory, 0700), 0);
	check_fault(&f->fault, "SR_BACKEND_FAILURE_47", sr_scan(&f->storage, f->sr, &f->fault));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_47", fixture_vdi(f, value_new_int(MIB), &other));
	check_fault(&f->fault, "SR_BACKEND_FAILURE_47", vdi_destroy(&f->storage, vdi, &f->fault));
	struct value *record CLEANUP_VALUE = fixture_record(f, "VDI", vdi);
	assert_false(value_find_bool(record, "missing", true));
	assert_int_equal(rmdir(f->directory), 0);
	assert_int_equal(rename(away, f->directory), 0);
	check_ok(&f->fault, vdi_destroy(&f->storage, vdi, &f->fault));
	assert_int_equal(fixture_count_files(f), 0);
}

static void a_directory_is_one_srs_of_all_pools(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct value *config CLEANUP_VALUE = value_new_struct();
	char *sr CLEANUP_FREE = NULL;

	value_set_string(fields, "type", "file");
	value_set_string(config, "location", f->directory);
	for (int shared = 0; shared < 2; shared++) {
		value_set_bool(fields, "shared", shared);
		assert_true(sr_create(&hosts.other, config, fields, &sr, &f->fault) < 0);
		assert_string_equal(f->fault.code, "SR_BACKEND_FAILURE_42");
		assert_says(f, hosts.uuid);
	}
	/* It goes with its SR. */
	check_ok(&f->fault, sr_destroy(&f->storage, hosts.sr, &f->fault));
	check_ok(&f->fault, sr_create(&hosts.other, config, fields, &sr, &f->fault));
}

static void a_mark_whose_sr_was_never_stored_goes(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	char *mark CLEANUP_FREE = in_directory(f, ".ferry-sr");

	/* As if it had crashed: before the SR, then after. */
	check_ok(&f->fault, mark_record(&f->storage, f->directory, hosts.uuid, &f->fault));
	sr_recover_marks(&f->storage);
	assert_int_equal(access(mark, F_OK), 0);
	check_ok(&f->fault, mark_record(&f->storage, f->directory, hosts.uuid, &f->fault));
	struct value *pbds CLEANUP_VALUE = NULL;
	check_ok(&f->fault, object_get_all(f->storage.pool, "PBD", &pbds, &f->fault));
	check_ok(&f->fault,
		object_destroy(f->storage.pool, "PBD", pbds->array.items[0]->string, &f->fault));
	check_ok(&f->fault, object_destroy(f->storage.pool, "SR", hosts.sr, &f->fault));
	write_text(mark, "");
	sr_recover_marks(&f->storage);
	assert_int_equal(access(mark, F_OK), -1);
}

static void an_sr_becomes_shared_and_private(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	char *mark CLEANUP_FREE = in_directory(f, ".ferry-sr");

	check_ok(&f->fault, sr_set_shared(&f->storage, hosts.sr, false, &f->fault));
	assert_int_equal(access(mark, F_OK), -1);
	char *pbd CLEANUP_FREE = new_pbd(&hosts, f->directory);
	check_fault(&f->fault, "SR_NOT_SHARABLE", sr_plug(&hosts.other, pbd, &f->fault));
	check_ok(&f->fault, sr_set_shared(&f->storage, hosts.sr, true, &f->fault));
	assert_int_equal(access(mark, F_OK), 0);
	check_ok(&f->fault, sr_plug(&hosts.other, pbd, &f->fault));
	check_fault(&f->fault, "SR_HAS_MULTIPLE_PBDS",
		sr_set_shared(&f->storage, hosts.sr, false, &f->fault));
	assert_int_equal(access(mark, F_OK), 0);
}

/* --- Files --------------------------------------------------------------------------------------
 */

static void either_host_makes_and_removes_disks(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	plug_other(&hosts);
	struct value *record CLEANUP_VALUE = value_new_struct();
	char *vdi CLEANUP_FREE = NULL;

	value_set_string(record, "SR", hosts.sr);
	value_set_int(record, "virtual_size", MIB);
	check_ok(&f->fault, vdi_create(&hosts.other, record, &vdi, &f->fault));
	check_ok(&f->fault, vdi_resize(&f->storage, vdi, 2 * MIB, &f->fault));
	check_fault(&f->fault, "SR_NOT_EMPTY", sr_destroy(&f->storage, hosts.sr, &f->fault));
	check_ok(&f->fault, vdi_destroy(&f->storage, vdi, &f->fault));
	assert_int_equal(fixture_count_files(f), 0);
	check_fault(&f->fault, "SR_HAS_PBD", sr_destroy(&f->storage, hosts.sr, &f->fault));
}

/* An image that a migration to one host fills is no new image to a scan of the other, and its space
 * is spoken for. */
static void what_one_host_makes_is_held_for_the_other(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	plug_other(&hosts);
	char *uuid CLEANUP_FREE = uuid_new();
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	struct value *holds CLEANUP_VALUE = NULL;
	struct value *after CLEANUP_VALUE = NULL;

	check_ok(&f->fault, storage_prepare_disk(&hosts.other, "migration", hosts.sr, uuid, MIB,
				    MIB, &location, &path, &f->fault));
	check_ok(&f->fault, sr_scan(&f->storage, hosts.sr, &f->fault));
	assert_int_equal(fixture_count(f, "VDI"), 0);
	check_ok(&f->fault, storage_list_holds(f->directory, &holds, &f->fault));
	const struct value *hold = value_find(holds, location);
	assert_string_equal(value_find_string(hold, "host", ""), hosts.other.host_ref);
	assert_int_equal(value_find_int(hold, "need_bytes", 0), MIB);
	char *mine CLEANUP_FREE = NULL;
	char *at CLEANUP_FREE = NULL;
	char *another CLEANUP_FREE = uuid_new();
	assert_true(storage_prepare_disk(&f->storage, "m", hosts.sr, another, MIB,
			    (uint64_t)INT64_MAX - MIB, &mine, &at, &f->fault) < 0);
	assert_says(f, "1048576 are promised");
	check_ok(&f->fault, storage_recover(&hosts.other, "migration", &f->fault));
	assert_int_equal(access(path, F_OK), -1);
	check_ok(&f->fault, storage_list_holds(f->directory, &after, &f->fault));
	assert_int_equal(after->record.n_members, 0);
}

/* A host that was ejected in the middle knows the SR no more: the pool decides on the file. */
static void leftovers_of_a_host_that_left_stay(void **state)
{
	struct hosts hosts CLEANUP_HOSTS = {0};
	hosts_open(&hosts, state);
	struct fixture *f = hosts.f;
	plug_other(&hosts);
	char *uuid CLEANUP_FREE = uuid_new();
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *fresh CLEANUP_FREE = xasprintf("%s/fresh.db", f->folder);
	struct storage left = hosts.other;

	check_ok(&f->fault, storage_prepare_disk(&hosts.other, "", hosts.sr, uuid, MIB, 0,
				    &location, &path, &f->fault));
	check_ok(&f->fault, pool_db_open(fresh, &left.pool, &f->fault));
	check_ok(&f->fault, storage_recover(&left, "", &f->fault));
	pool_db_close(left.pool);
	assert_int_equal(access(path, F_OK), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(another_directory_is_refused),
		T(a_directory_that_loses_its_mark_is_left_alone),
		T(a_directory_is_one_srs_of_all_pools),
		T(a_mark_whose_sr_was_never_stored_goes),
		T(an_sr_becomes_shared_and_private),
		T(either_host_makes_and_removes_disks),
		T(what_one_host_makes_is_held_for_the_other),
		T(leftovers_of_a_host_that_left_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
