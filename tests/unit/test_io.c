/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct fixture {
	char dir[32];
	char *file; /* within dir; not there yet */
};

static int setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));

	strcpy(fixture->dir, "/tmp/ferry-io-XXXXXX");
	if (!mkdtemp(fixture->dir))
		return -1;
	fixture->file = xasprintf("%s/file", fixture->dir);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	unlink(fixture->file);
	int r = rmdir(fixture->dir); /* fails when a test left something behind */
	free(fixture->file);
	free(fixture);
	return r;
}

static unsigned count_entries(const char *dir)
{
	DIR *handle = opendir(dir);
	unsigned n = 0;

	assert_non_null(handle);
	for (const struct dirent *entry; (entry = readdir(handle));)
		n += entry->d_name[0] != '.';
	closedir(handle);
	return n;
}

static void a_read_past_the_end_is_no_data(void **state)
{
	struct fixture *fixture = *state;
	int fd CLEANUP_CLOSE = open(fixture->file, O_RDWR | O_CREAT, 0600);
	char data[16];

	assert_int_equal(io_pwrite_full(fd, "0123456789", 10, 0), 0);
	assert_int_equal(io_pread_full(fd, data, 10, 0), 0);
	assert_memory_equal(data, "0123456789", 10);
	assert_int_equal(io_pread_full(fd, data, 4, 8), -ENODATA);
	assert_int_equal(io_pread_full(fd, data, 1, 10), -ENODATA);
	assert_int_equal(io_pread_full(fd, data, 0, 10), 0);
}

static void *drain_slowly(void *arg)
{
	size_t total = 0;
	char chunk[1000];
	ssize_t n;

	while ((n = read(*(int *)arg, chunk, sizeof(chunk))) > 0)
		total += (size_t)n;
	return (void *)total;
}

static void short_writes_are_finished(void **state)
{
	const size_t length = 1 << 20; /* a pipe takes 64 KiB at once */
	char *data CLEANUP_FREE = xcalloc(length, 1);
	pthread_t thread;
	int fds[2];
	void *total;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pthread_create(&thread, NULL, drain_slowly, &fds[0]), 0);
	assert_int_equal(io_write_full(fds[1], data, length), 0);
	close(fds[1]);
	pthread_join(thread, &total);
	close(fds[0]);
	assert_int_equal((size_t)total, length);
}

static void a_file_larger_than_allowed_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct buf buf CLEANUP_BUF = BUF_INIT;
	char *data CLEANUP_FREE = xcalloc(20000, 1);

	assert_int_equal(io_replace_file(fixture->file, data, 20000, 0600), 0);
	assert_int_equal(io_read_file(fixture->file, 19999, &buf), -EFBIG);
	buf_free(&buf);
	assert_int_equal(io_read_file(fixture->file, 20000, &buf), 0);
	assert_int_equal(buf.length, 20000);
	assert_int_equal(io_read_file("/nonexistent/x", 1, &buf), -ENOENT);
}

static void a_refused_file_adds_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct buf buf CLEANUP_BUF = BUF_INIT;
	char *data CLEANUP_FREE = xcalloc(20000, 1);

	assert_int_equal(io_replace_file(fixture->file, data, 20000, 0600), 0);
	buf_append_string(&buf, "before");
	assert_int_equal(io_read_file(fixture->file, 19999, &buf), -EFBIG);
	assert_int_equal(buf.length, strlen("before"));
	assert_string_equal(buf.data, "before");
}

static void replacing_changes_content_and_mode_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct buf buf CLEANUP_BUF = BUF_INIT;
	struct stat st;

	assert_int_equal(io_replace_file(fixture->file, "old", 3, 0644), 0);
	assert_int_equal(io_replace_file(fixture->file, "newer", 5, 0600), 0);
	assert_int_equal(io_read_file(fixture->file, 100, &buf), 0);
	assert_string_equal(buf.data, "newer");
	assert_int_equal(stat(fixture->file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(count_entries(fixture->dir), 1);
}

static void a_failed_replace_keeps_the_old_file_and_no_other(void **state)
{
	struct fixture *fixture = *state;
	struct buf buf CLEANUP_BUF = BUF_INIT;
	char *data CLEANUP_FREE = xcalloc(1 << 20, 1);
	struct rlimit old;

	assert_int_equal(io_replace_file(fixture->file, "old", 3, 0600), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	struct rlimit small = {.rlim_cur = 4096, .rlim_max = old.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int r = io_replace_file(fixture->file, data, 1 << 20, 0600);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(io_read_file(fixture->file, 100, &buf), 0);
	assert_string_equal(buf.data, "old");
	assert_int_equal(count_entries(fixture->dir), 1);
}

static void a_directory_is_made_once_and_a_file_is_none(void **state)
{
	struct fixture *fixture = *state;
	char *deep CLEANUP_FREE = xasprintf("%s/a/b", fixture->dir);
	char *dir CLEANUP_FREE = xasprintf("%s/a", fixture->dir);

	assert_int_equal(io_ensure_dir(deep, 0700), -ENOENT);
	assert_int_equal(io_ensure_dir(dir, 0700), 0);
	assert_int_equal(io_ensure_dir(dir, 0700), 0);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(io_replace_file(fixture->file, "x", 1, 0600), 0);
	assert_int_equal(io_ensure_dir(fixture->file, 0700), -ENOTDIR);
}

static void every_kind_of_path_has_a_parent(void **state)
{
	(void)state;
	assert_int_equal(io_sync_parent("name"), 0);
	assert_int_equal(io_sync_parent("/name"), 0);
	assert_int_equal(io_sync_parent("/tmp/name"), 0);
	assert_int_equal(io_sync_parent("/nonexistent/name"), -ENOENT);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_read_past_the_end_is_no_data, setup, teardown),
		cmocka_unit_test(short_writes_are_finished),
		cmocka_unit_test_setup_teardown(
			a_file_larger_than_allowed_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refused_file_adds_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			replacing_changes_content_and_mode_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_failed_replace_keeps_the_old_file_and_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_directory_is_made_once_and_a_file_is_none, setup, teardown),
		cmocka_unit_test(every_kind_of_path_has_a_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
