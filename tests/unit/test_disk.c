/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "target/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define MIB (UINT64_C(1) << 20)

static char dir[] = "/tmp/ferry-disk-XXXXXX";
static char *path;

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	path = xasprintf("%s/image", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	free(path);
	return rmdir(dir);
}

static int remove_image(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static void a_new_disk_is_sparse_private_and_of_the_size_asked(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct disk_info info;
	struct stat st;

	(void)state;
	check_ok(&fault, disk_create(path, 64 * MIB + 512, &fault));
	check_ok(&fault, disk_inspect(path, &info, &fault));
	assert_int_equal(info.size_bytes, 64 * MIB + 512);
	assert_true(info.allocated_bytes < MIB);
	assert_true(info.regular && info.whole_sectors);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void a_name_that_exists_is_not_overwritten(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct disk_info info;

	(void)state;
	check_ok(&fault, disk_create(path, MIB, &fault));
	assert_int_equal(disk_create(path, 2 * MIB, &fault), -EEXIST);
	assert_non_null(strstr(fault.params[0], path));
	check_ok(&fault, disk_inspect(path, &info, &fault));
	assert_int_equal(info.size_bytes, MIB);
	/* Not even one that leads nowhere. */
	unlink(path);
	assert_int_equal(symlink("/nowhere/at/all", path), 0);
	assert_int_equal(disk_create(path, MIB, &fault), -EEXIST);
}

static void odd_and_empty_sizes_are_refused(void **state)
{
	const uint64_t sizes[] = {0, 1, 511, 513, MIB + 1, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		assert_int_equal(disk_create(path, sizes[i], &fault), -EINVAL);
		assert_non_null(fault.code);
		assert_int_equal(access(path, F_OK), -1);
	}
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	assert_int_equal(disk_create(path, UINT64_MAX - 511, &fault), -EFBIG);
}

static void a_failed_create_leaves_nothing(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct rlimit before, limit;

	(void)state;
	/* The file size limit makes ftruncate fail after the file was made. */
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = MIB;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	int r = disk_create(path, 2 * MIB, &fault);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(access(path, F_OK), -1);
}

static void it_grows_and_never_shrinks(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct disk_info info;

	(void)state;
	assert_int_equal(disk_grow(path, MIB, &fault), -ENOENT);
	check_ok(&fault, disk_create(path, MIB, &fault));
	check_ok(&fault, disk_grow(path, MIB, &fault));
	check_ok(&fault, disk_grow(path, 3 * MIB, &fault));
	assert_int_equal(disk_grow(path, 2 * MIB, &fault), -EINVAL);
	assert_int_equal(disk_grow(path, 3 * MIB + 1, &fault), -EINVAL);
	check_ok(&fault, disk_inspect(path, &info, &fault));
	assert_int_equal(info.size_bytes, 3 * MIB);
}

static void removing_twice_is_fine(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct disk_info info;

	(void)state;
	check_ok(&fault, disk_create(path, MIB, &fault));
	check_ok(&fault, disk_remove(path, &fault));
	check_ok(&fault, disk_remove(path, &fault));
	check_ok(&fault, disk_remove("/no/such/folder/image", &fault));
	assert_int_equal(disk_inspect(path, &info, &fault), -ENOENT);
	assert_true(disk_remove(dir, &fault) < 0);
	assert_int_equal(access(dir, F_OK), 0);
}

static void what_is_not_a_plain_file_is_told(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct disk_info info;

	(void)state;
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(disk_inspect(path, &info, &fault), -ELOOP);
	assert_int_equal(disk_grow(path, 64 * MIB, &fault), -ELOOP);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	check_ok(&fault, disk_inspect(path, &info, &fault));
	assert_false(info.regular || info.whole_sectors);
	assert_int_equal(disk_grow(path, MIB, &fault), -EINVAL);
	unlink(path);
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "odd", 3), 3);
	check_ok(&fault, disk_inspect(path, &info, &fault));
	assert_true(info.regular && !info.whole_sectors);
}

static void the_space_of_a_folder_is_known(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t size, free_bytes;

	(void)state;
	check_ok(&fault, disk_space(dir, &size, &free_bytes, &fault));
	assert_true(size > 0 && free_bytes <= size);
	assert_int_equal(disk_space("/no/such/folder", &size, &free_bytes, &fault), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			a_new_disk_is_sparse_private_and_of_the_size_asked, remove_image),
		cmocka_unit_test_teardown(a_name_that_exists_is_not_overwritten, remove_image),
		cmocka_unit_test_teardown(odd_and_empty_sizes_are_refused, remove_image),
		cmocka_unit_test_teardown(a_failed_create_leaves_nothing, remove_image),
		cmocka_unit_test_teardown(it_grows_and_never_shrinks, remove_image),
		cmocka_unit_test_teardown(removing_twice_is_fine, remove_image),
		cmocka_unit_test_teardown(what_is_not_a_plain_file_is_told, remove_image),
		cmocka_unit_test(the_space_of_a_folder_is_known),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
