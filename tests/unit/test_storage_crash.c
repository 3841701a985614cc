/* SPDX-License-Identifier: Apache-2.0 */
/* kill -9 between any two steps of making or removing a disk: after storage_recover() there is no
 * file without a VDI, no VDI without a file, and nothing in the journal.
 *
 * The linker puts the functions below in front of the real ones (--wrap). A child process runs one
 * operation and kills itself at its n-th step; n grows until the operation comes to its end. */
#include "tests/lib/storage_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#define UUID      "0123abcd-0000-4000-8000-000000000001"
#define MIGRATION "aaaaaaaa-0000-4000-8000-000000000001"
#define MIB       (INT64_C(1) << 20)

static unsigned steps_left; /* 0: the process lives */

static void step(void)
{
	if (steps_left && --steps_left == 0)
		kill(getpid(), SIGKILL);
}

#define WRAP(name, parameters, arguments)                                                          \
	int __real_##name parameters;                                                              \
	int __wrap_##name parameters;                                                              \
	int __wrap_##name parameters                                                               \
	{                                                                                          \
		step();                                                                            \
		int r = __real_##name arguments;                                                   \
		step();                                                                            \
		return r;                                                                          \
	}

WRAP(resource_record,
	(struct agent_db * db, const char *owner, const char *kind, const char *name,
		const struct value *detail, int64_t *ret_id, struct fault *fault),
	(db, owner, kind, name, detail, ret_id, fault))
WRAP(resource_forget, (struct agent_db * db, int64_t id, struct fault *fault), (db, id, fault))
WRAP(pool_db_transaction, (struct pool_db * db, pool_db_fn fn, void *arg, struct fault *fault),
	(db, fn, arg, fault))
WRAP(object_create,
	(struct pool_db * db, const char *class, const struct value *fields, char **ret_ref,
		struct fault *fault),
	(db, class, fields, ret_ref, fault))
WRAP(object_destroy, (struct pool_db * db, const char *class, const char *ref, struct fault *fault),
	(db, class, ref, fault))
WRAP(ftruncate64, (int fd, off_t length), (fd, length))
WRAP(fsync, (int fd), (fd))
WRAP(unlink, (const char *path), (path))

/* --- Operations, in the child
 * ------------------------------------------------------------------------
 */

static int make_disk(struct fixture *f)
{
	char *vdi CLEANUP_FREE = NULL;

	return fixture_vdi(f, value_new_int(MIB), &vdi);
}

static int remove_disk(struct fixture *f)
{
	struct value *vdis CLEANUP_VALUE = NULL;
	int r = object_get_all(f->storage.pool, "VDI", &vdis, &f->fault);

	return r < 0 ? r : vdi_destroy(&f->storage, vdis->array.items[0]->string, &f->fault);
}

static int prepare_disk(struct fixture *f)
{
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;

	return storage_prepare_disk(
		&f->storage, MIGRATION, f->sr, UUID, MIB, 0, &location, &path, &f->fault);
}

static int recover(struct fixture *f)
{
	return storage_recover(&f->storage, NULL, &f->fault);
}

/* Whether the operation came to its end; false: it was killed at step n. */
static bool run_until(struct fixture *f, int (*operation)(struct fixture *f), unsigned n)
{
	int status;

	fixture_close(f); /* a database must not be carried over a fork */
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fixture_open(f);
		steps_left = n;
		int r = operation(f);
		steps_left = 0;
		_exit(r < 0 ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	fixture_open(f);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGKILL);
		return false;
	}
	assert_int_equal(WEXITSTATUS(status), 0);
	return true;
}

/* Rows and files must be in step, as many as expected at most; returns how many there are. */
static size_t check_consistent(struct fixture *f)
{
	struct value *vdis CLEANUP_VALUE = NULL;

	check_ok(&f->fault, recover(f));
	assert_int_equal(fixture_count_journal(f), 0);
	check_ok(&f->fault, object_get_all(f->storage.pool, "VDI", &vdis, &f->fault));
	assert_int_equal(fixture_count_files(f), vdis->array.n_items);
	for (size_t i = 0; i < vdis->array.n_items; i++) {
		char *path CLEANUP_FREE = NULL;
		struct stat st;
		check_ok(&f->fault,
			vdi_path(&f->storage, vdis->array.items[i]->string, &path, &f->fault));
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, MIB);
	}
	return vdis->array.n_items;
}

static void a_disk_being_made_is_there_or_not(void **state)
{
	struct fixture *f = *state;
	size_t n_disks = 0;
	bool ended = false;
	unsigned n;

	fixture_sr(f);
	for (n = 1; !ended; n++) {
		ended = run_until(f, make_disk, n);
		size_t now = check_consistent(f);
		assert_in_range(now, n_disks, n_disks + 1);
		if (ended)
			assert_int_equal(now, n_disks + 1);
		n_disks = now;
	}
	assert_true(n > 10); /* it was killed at each of that many steps */
}

static void a_disk_being_removed_is_there_or_not(void **state)
{
	struct fixture *f = *state;
	bool ended = false;
	unsigned n;

	fixture_sr(f);
	for (n = 1; !ended; n++) {
		char *vdi CLEANUP_FREE = NULL;
		if (check_consistent(f) == 0)
			vdi = fixture_new_vdi(f, MIB);
		ended = run_until(f, remove_disk, n);
		size_t now = check_consistent(f);
		assert_in_range(now, 0, 1);
		if (ended)
			assert_int_equal(now, 0);
	}
	assert_true(n > 10);
}

static void a_disk_prepared_for_a_dead_migration_goes(void **state)
{
	struct fixture *f = *state;
	bool ended = false;
	unsigned n;

	fixture_sr(f);
	for (n = 1; !ended; n++) {
		ended = run_until(f, prepare_disk, n);
		assert_int_equal(check_consistent(f), 0);
	}
	assert_true(n > 6);
}

static void a_disk_prepared_again_after_a_crash_is_whole(void **state)
{
	struct fixture *f = *state;
	bool ended = false;

	fixture_sr(f);
	for (unsigned n = 1; !ended; n++) {
		ended = run_until(f, prepare_disk, n);
		check_ok(&f->fault, prepare_disk(f));
		char *path CLEANUP_FREE = xasprintf("%s/" UUID ".raw", f->directory);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, MIB);
		assert_int_equal(check_consistent(f), 0);
	}
}

static void a_recovery_that_dies_is_finished_by_the_next_one(void **state)
{
	struct fixture *f = *state;
	bool ended = false;
	unsigned n;

	fixture_sr(f);
	for (n = 1; !ended; n++) {
		check_ok(&f->fault, prepare_disk(f));
		ended = run_until(f, recover, n);
		assert_int_equal(check_consistent(f), 0);
	}
	assert_true(n > 4);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(a_disk_being_made_is_there_or_not),
		T(a_disk_being_removed_is_there_or_not),
		T(a_disk_prepared_for_a_dead_migration_goes),
		T(a_disk_prepared_again_after_a_crash_is_whole),
		T(a_recovery_that_dies_is_finished_by_the_next_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
