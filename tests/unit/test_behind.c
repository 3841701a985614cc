/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy's reading leaves of a file in the page cache. */
#include "tests/lib/check.h"

#include "agent/copy/behind.h"
#include "base/alloc.h"
#include "base/io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB   ((size_t)1 << 20)
#define BYTES (64 * MIB)
#define PIECE ((size_t)256 << 10)
/* The kernel may take a page back at any time. */
#define SLACK (BYTES / 16)

struct image {
	int fd;
	bool is_in_memory; /* on tmpfs: there is nothing to give back */
};

static char piece[PIECE];

static size_t n_cached_bytes(int fd, size_t from, size_t length)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
	unsigned char *pages CLEANUP_FREE = xcalloc(length / page, 1);
	void *map = mmap(NULL, length, PROT_NONE, MAP_SHARED, fd, (off_t)from);

	assert_true(map != MAP_FAILED);
	assert_int_equal(mincore(map, length, pages), 0);
	munmap(map, length);
	for (size_t i = 0; i < length / page; i++)
		n += pages[i] & 1 ? page : 0;
	return n;
}

static void forget(int fd)
{
	assert_int_equal(fdatasync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static int setup(void **state)
{
	static struct image image;
	char path[] = "/var/tmp/ferry-behind-XXXXXX";

	image.fd = mkstemp(path);
	assert_true(image.fd >= 0);
	unlink(path);
	memset(piece, 'x', sizeof(piece));
	for (size_t at = 0; at < BYTES; at += PIECE)
		assert_int_equal(io_pwrite_full(image.fd, piece, PIECE, at), 0);
	forget(image.fd);
	image.is_in_memory = n_cached_bytes(image.fd, 0, BYTES) == BYTES;
	*state = &image;
	return 0;
}

static int teardown(void **state)
{
	struct image *image = *state;

	return close(image->fd);
}

/* Without any care for the cache, as whoever uses the file. */
static void use(int fd, size_t from, size_t length)
{
	for (size_t at = from; at < from + length; at += PIECE)
		assert_int_equal(io_pread_full(fd, piece, PIECE, at), 0);
}

static void copy(int fd, size_t n)
{
	struct behind behind = {0};

	behind_begin(&behind, fd, BYTES);
	for (size_t at = 0; at < BYTES; at += n) {
		behind_read(&behind, fd, at, n);
		assert_int_equal(io_pread_full(fd, piece, n, at), 0);
	}
	behind_end(&behind, fd);
}

static void what_a_copy_brought_in_is_given_back(void **state)
{
	struct image *image = *state;

	copy(image->fd, PIECE);
	if (!image->is_in_memory)
		assert_in_range(n_cached_bytes(image->fd, 0, BYTES), 0, SLACK);
}

static void what_others_use_stays(void **state)
{
	struct image *image = *state;

	use(image->fd, 0, BYTES);
	copy(image->fd, PIECE);
	assert_in_range(n_cached_bytes(image->fd, 0, BYTES), BYTES - SLACK, BYTES);
	if (image->is_in_memory)
		return;
	forget(image->fd);
	use(image->fd, 18 * MIB, 12 * MIB);
	copy(image->fd, PIECE);
	assert_in_range(n_cached_bytes(image->fd, 18 * MIB, 12 * MIB), 12 * MIB - SLACK, 12 * MIB);
}

static void short_reads_leave_the_cache_alone(void **state)
{
	struct image *image = *state;

	copy(image->fd, 4096);
	assert_in_range(n_cached_bytes(image->fd, 0, BYTES), BYTES - SLACK, BYTES);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_a_copy_brought_in_is_given_back, setup, teardown),
		cmocka_unit_test_setup_teardown(what_others_use_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(short_reads_leave_the_cache_alone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
