/* SPDX-License-Identifier: Apache-2.0 */
/* Copies between two files of a fresh folder. */
#include "agent/copy/file_copy.h"

#include "tests/lib/check.h"
#include "tests/lib/nbd.h"

#include "base/alloc.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB  (UINT64_C(1) << 20)
#define SIZE (8 * MIB)

struct files {
	char dir[64];
	char source[80];
	char target[80];
	int fd; /* of the source */
	struct cancel *cancel;
	struct fault fault;
	uint64_t copied;
};

static int make(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)SIZE), 0);
	return fd;
}

static int setup(void **state)
{
	struct files *f = xcalloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/ferry-filecopy-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->source, sizeof(f->source), "%s/a", f->dir);
	snprintf(f->target, sizeof(f->target), "%s/b", f->dir);
	f->fd = make(f->source);
	close(make(f->target));
	f->cancel = cancel_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct files *f = *state;

	close(f->fd);
	unlink(f->source);
	unlink(f->target);
	rmdir(f->dir);
	cancel_free(f->cancel);
	fault_clear(&f->fault);
	free(f);
	return 0;
}

static void write_at(struct files *f, uint64_t offset, size_t length, int seed)
{
	unsigned char *data CLEANUP_FREE = malloc(length);

	for (size_t i = 0; i < length; i++)
		data[i] = (unsigned char)((i * 31 + i / 251 + (size_t)seed) | 1);
	assert_int_equal(io_pwrite_full(f->fd, data, length, offset), 0);
}

static void count(void *arg, uint64_t bytes)
{
	struct files *f = arg;

	f->copied += bytes;
}

static struct file_copy *open_copy(struct files *f)
{
	struct file_copy *copy = NULL;

	check_ok(&f->fault, file_copy_open(
				    &(struct file_copy_params){
					    .source = f->source,
					    .target = f->target,
					    .size_bytes = SIZE,
					    .cancel = f->cancel,
					    .copied = count,
					    .arg = f,
				    },
				    &copy, &f->fault));
	return copy;
}

static void assert_same(struct files *f)
{
	unsigned char *a CLEANUP_FREE = malloc(SIZE);
	unsigned char *b CLEANUP_FREE = malloc(SIZE);
	int fd CLEANUP_CLOSE = open(f->target, O_RDONLY | O_CLOEXEC);

	assert_int_equal(io_pread_full(f->fd, a, SIZE, 0), 0);
	assert_int_equal(io_pread_full(fd, b, SIZE, 0), 0);
	assert_memory_equal(a, b, SIZE);
}

static uint64_t allocated(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void the_copy_is_equal_and_as_sparse(void **state)
{
	struct files *f = *state;
	struct file_copy *copy CLEANUP_FILE_COPY = open_copy(f);
	unsigned char zeros[65536] = {0};

	write_at(f, 0, 512, 1);
	write_at(f, 3 * MIB + 512, MIB + 4096, 2);
	/* Written, and all the same nothing. */
	assert_int_equal(io_pwrite_full(f->fd, zeros, sizeof(zeros), 6 * MIB), 0);
	write_at(f, SIZE - 512, 512, 3);
	check_ok(&f->fault, file_copy_bulk(copy, &f->fault));
	assert_same(f);
	assert_true(allocated(f->target) < 2 * MIB);
	assert_true(f->copied >= MIB && f->copied < 4 * MIB);
}

static void what_was_written_since_is_copied_over(void **state)
{
	struct files *f = *state;
	struct file_copy *copy CLEANUP_FILE_COPY = open_copy(f);
	const struct extent changed[] = {{0, 4096}, {MIB - 4096, 3 * MIB}};

	write_at(f, 0, 6 * MIB, 1);
	check_ok(&f->fault, file_copy_bulk(copy, &f->fault));
	write_at(f, 0, 4096, 2);
	write_at(f, MIB - 4096, MIB, 3);
	/* What the guest discards is discarded there too. */
	assert_int_equal(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)(2 * MIB - 4096), (off_t)(2 * MIB)),
		0);
	check_ok(&f->fault, file_copy_extents(copy, changed, 2, false, &f->fault));
	assert_same(f);
	assert_true(allocated(f->target) <= 5 * MIB);
}

static void a_cancel_ends_it_but_not_its_last_round(void **state)
{
	struct files *f = *state;
	struct file_copy *copy CLEANUP_FILE_COPY = open_copy(f);
	const struct extent changed = {0, 4096};

	write_at(f, 0, 4096, 1);
	cancel_request(f->cancel, "enough");
	assert_int_equal(file_copy_bulk(copy, &f->fault), -ECANCELED);
	fault_clear(&f->fault);
	assert_int_equal(file_copy_extents(copy, &changed, 1, false, &f->fault), -ECANCELED);
	fault_clear(&f->fault);
	check_ok(&f->fault, file_copy_extents(copy, &changed, 1, true, &f->fault));
	assert_same(f);
}

static void what_is_held_is_what_was_there_then(void **state)
{
	struct files *f = *state;
	struct file_copy *copy CLEANUP_FILE_COPY = open_copy(f);
	const struct extent changed[] = {{4096, 3 * 4096}, {MIB, 2 * MIB + 4096}};
	unsigned char now[4096];

	write_at(f, 0, 4 * MIB, 1);
	check_ok(&f->fault, file_copy_bulk(copy, &f->fault));
	assert_int_equal(file_copy_hold(copy, changed, 2, 0, &f->fault), -ETIMEDOUT);
	fault_clear(&f->fault);
	write_at(f, 0, 4 * MIB, 2);
	check_ok(&f->fault, file_copy_hold(copy, changed, 2, UINT64_MAX, &f->fault));
	write_at(f, 0, 4 * MIB, 3);
	check_ok(&f->fault, file_copy_extents(copy, changed, 2, false, &f->fault));
	int fd CLEANUP_CLOSE = open(f->target, O_RDONLY | O_CLOEXEC);
	for (uint64_t at = 0; at < 4 * MIB; at += sizeof(now)) {
		bool is_held = (at >= 4096 && at < 4 * 4096) || (at >= MIB && at < 3 * MIB + 4096);
		assert_int_equal(pread(fd, now, sizeof(now), (off_t)at), sizeof(now));
		assert_int_equal(
			now[0], (unsigned char)((at * 31 + at / 251 + (is_held ? 2 : 1)) | 1));
	}
	/* From here on it is read again. */
	check_ok(&f->fault,
		file_copy_extents(copy, &(struct extent){0, 4 * MIB}, 1, false, &f->fault));
	assert_same(f);
}

static bool over(void *arg)
{
	const bool *is_over = arg;

	return *is_over;
}

static void what_is_of_no_use_any_more_ends(void **state)
{
	struct files *f = *state;
	bool is_over = true;
	const struct file_copy_params params = {.source = f->source,
		.target = f->target,
		.size_bytes = SIZE,
		.is_over = over,
		.arg = &is_over};
	struct file_copy *copy CLEANUP_FILE_COPY = NULL;

	write_at(f, 0, MIB, 1);
	check_ok(&f->fault, file_copy_open(&params, &copy, &f->fault));
	assert_int_equal(file_copy_bulk(copy, &f->fault), -ECANCELED);
	assert_int_equal(allocated(f->target), 0);
}

static void a_target_of_another_length_is_an_error(void **state)
{
	struct files *f = *state;
	struct file_copy *copy CLEANUP_FILE_COPY = open_copy(f);

	write_at(f, 0, 4096, 1);
	assert_int_equal(truncate(f->target, (off_t)(SIZE / 2)), 0);
	assert_int_equal(file_copy_bulk(copy, &f->fault), -EIO);
}

static void a_missing_target_is_an_error(void **state)
{
	struct files *f = *state;
	struct file_copy *copy = NULL;
	const struct file_copy_params params = {
		.source = f->source, .target = "/nonexistent/b", .size_bytes = SIZE};

	assert_int_equal(file_copy_open(&params, &copy, &f->fault), -ENOENT);
	assert_null(copy);
}

/* --- Images that are not raw --------------------------------------------------------------------
 */

struct images {
	struct nbd_fixture source, target;
	struct endpoint *writer; /* of the source */
	struct file_copy *copy;
	unsigned char *data; /* MIB */
};

static void images_begin(struct images *images, struct files *f)
{
	nbd_start(&images->source, "qcow2", SIZE);
	nbd_start(&images->target, "qcow2", SIZE);
	struct endpoint_spec source = nbd_spec(&images->source);
	struct endpoint_spec target = nbd_spec(&images->target);
	images->data = malloc(MIB);
	check_ok(&f->fault, endpoint_open(&source, f->cancel, &images->writer, &f->fault));
	check_ok(&f->fault, file_copy_open(
				    &(struct file_copy_params){
					    .source = images->source.image,
					    .target = images->target.image,
					    .source_export = &source,
					    .target_export = &target,
					    .size_bytes = SIZE,
					    .cancel = f->cancel,
					    .copied = count,
					    .arg = f,
				    },
				    &images->copy, &f->fault));
}

static void images_end(struct images *images)
{
	file_copy_close(images->copy);
	endpoint_close(images->writer);
	free(images->data);
	nbd_stop(&images->source);
	nbd_stop(&images->target);
}

static void change(struct images *images, struct files *f, uint64_t offset, int byte)
{
	memset(images->data, byte, MIB);
	check_ok(&f->fault, endpoint_write(images->writer, (struct extent){offset, MIB},
				    images->data, NULL, &f->fault));
	check_ok(&f->fault, endpoint_flush(images->writer, NULL, &f->fault));
}

static void assert_images_same(struct images *images)
{
	nbd_kill(&images->source);
	nbd_kill(&images->target);
	nbd_qemu_img((const char *const[]){"compare", "-q", "-f", "qcow2", "-F", "qcow2",
		images->source.image, images->target.image, NULL});
	nbd_serve(&images->source);
	nbd_serve(&images->target);
}

static void an_image_is_copied_by_what_serves_it(void **state)
{
	struct files *f = *state;
	struct images images = {0};
	const struct extent changed[] = {{MIB, MIB}, {4 * MIB, MIB}};

	images_begin(&images, f);
	change(&images, f, MIB, 1);
	change(&images, f, 4 * MIB, 2);
	check_ok(&f->fault, file_copy_bulk(images.copy, &f->fault));
	assert_int_equal(f->copied, 2 * MIB);
	assert_true(allocated(images.target.image) < 3 * MIB);
	change(&images, f, MIB, 3);
	change(&images, f, 4 * MIB, 0);
	check_ok(&f->fault, file_copy_hold(images.copy, changed, 2, UINT64_MAX, &f->fault));
	check_ok(&f->fault, file_copy_extents(images.copy, changed, 2, false, &f->fault));
	assert_images_same(&images);
	images_end(&images);
}

static void a_server_that_dies_is_an_error(void **state)
{
	struct files *f = *state;
	struct images images = {0};

	images_begin(&images, f);
	change(&images, f, MIB, 1);
	nbd_kill(&images.target);
	assert_true(file_copy_bulk(images.copy, &f->fault) < 0);
	assert_true(f->fault.n_params > 0);
	assert_int_equal(f->copied, 0);
	nbd_serve(&images.target);
	images_end(&images);
}

/* Whether they can be depends on the file system of the folder. */
static void blocks_are_shared_or_nothing_is_done(void **state)
{
	struct files *f = *state;

	write_at(f, MIB, MIB, 1);
	int r = file_copy_reflink(f->source, f->target, &f->fault);
	assert_in_range(r, 0, 1);
	if (r)
		assert_same(f);
	else
		assert_int_equal(allocated(f->target), 0);
	unlink(f->target);
	assert_int_equal(file_copy_reflink(f->source, f->target, &f->fault), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_copy_is_equal_and_as_sparse),
		TEST(what_was_written_since_is_copied_over),
		TEST(a_cancel_ends_it_but_not_its_last_round),
		TEST(what_is_held_is_what_was_there_then),
		TEST(what_is_of_no_use_any_more_ends),
		TEST(a_target_of_another_length_is_an_error),
		TEST(a_missing_target_is_an_error),
		TEST(an_image_is_copied_by_what_serves_it),
		TEST(a_server_that_dies_is_an_error),
		TEST(blocks_are_shared_or_nothing_is_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
