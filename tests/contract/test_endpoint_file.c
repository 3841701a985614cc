/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/endpoint_contract.h"

#include "agent/copy/aio.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

static struct contract contract = {
	.spec = {.kind = ENDPOINT_FILE, .writable = true},
	.keeps_data = true,
};
static char path[] = "/tmp/ferry-endpoint-XXXXXX";

static int setup(void **state)
{
	strcpy(path + sizeof(path) - 7, "XXXXXX");
	int fd CLEANUP_CLOSE = mkstemp(path);

	contract.spec.path = path;
	*state = &contract;
	return fd >= 0 && ftruncate(fd, CONTRACT_BYTES) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static int try_open(const char *at, uint64_t size_bytes)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint_spec spec = {.kind = ENDPOINT_FILE, .path = at, .size_bytes = size_bytes};
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	int r = endpoint_open(&spec, NULL, &endpoint, &fault);

	if (r < 0)
		assert_non_null(strstr(fault.params[0], at));
	return r;
}

static void what_is_no_image_is_refused(void **state)
{
	char *link CLEANUP_FREE = xasprintf("%s.link", path);
	char *fifo CLEANUP_FREE = xasprintf("%s.fifo", path);

	(void)state;
	assert_int_equal(symlink(path, link), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(try_open(link, 0), -ELOOP);
	assert_int_equal(try_open(fifo, 0), -EINVAL);
	assert_int_equal(try_open("/tmp", 0), -EINVAL);
	assert_int_equal(try_open("/nonexistent/disk", 0), -ENOENT);
	assert_int_equal(try_open(path, CONTRACT_BYTES), 0);
	assert_int_equal(try_open(path, CONTRACT_BYTES + 512), -EIO);
	assert_int_equal(truncate(path, 1000), 0);
	assert_int_equal(try_open(path, 0), -EINVAL);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(try_open(path, 0), -EINVAL);
	unlink(link);
	unlink(fifo);
}

static void a_file_that_shrank_is_no_hole(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const struct contract *c = *state;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	struct extent data;
	char bytes[512];

	check_ok(&fault, endpoint_open(&c->spec, NULL, &endpoint, &fault));
	check_ok(&fault, endpoint_next_data(endpoint, 0, &data, &fault));
	assert_int_equal(data.length, 0);
	assert_int_equal(truncate(path, 1 << 20), 0);
	check_fault(&fault, "INTERNAL_ERROR", endpoint_next_data(endpoint, 0, &data, &fault));
	struct extent gone = {2 << 20, 512};
	assert_int_equal(endpoint_read(endpoint, gone, bytes, NULL, &fault), -EIO);
	assert_non_null(strstr(endpoint_error(endpoint), path));
}

/* --- A guest that discards meanwhile
 * --------------------------------------------------------------
 */

static struct extent discarded; /* before the next search for a hole */

off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);

off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
	if (whence == SEEK_HOLE && discarded.length) {
		int guest CLEANUP_CLOSE = open(path, O_WRONLY | O_CLOEXEC);
		assert_int_equal(fallocate(guest, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					 (off_t)discarded.offset, (off_t)discarded.length),
			0);
		discarded.length = 0;
	}
	return __real_lseek64(fd, offset, whence);
}

/* It is found, and gone when its end is looked for. What follows it is not gone. */
static void a_run_that_is_discarded_meanwhile_does_not_end_the_map(void **state)
{
	struct contract *c = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	struct extent run = {0}, behind = {2 << 20, 65536};
	char data[65536] = {1};
	bool is_found = false;

	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, data, sizeof(data), 1 << 20), sizeof(data));
	assert_int_equal(pwrite(fd, data, sizeof(data), (off_t)behind.offset), sizeof(data));
	check_ok(&fault, endpoint_open(&c->spec, NULL, &endpoint, &fault));
	discarded = (struct extent){1 << 20, sizeof(data)};
	for (int i = 0; i < 10 && !is_found; i++) {
		check_ok(&fault,
			endpoint_next_data(endpoint, run.offset + run.length, &run, &fault));
		assert_true(run.length > 0);
		is_found = run.offset <= behind.offset &&
			   run.offset + run.length >= behind.offset + behind.length;
	}
	assert_true(is_found);
	assert_int_equal(discarded.length, 0);
}

/* --- O_DIRECT --------------------------------------------------------------------------------- */

static enum { REFUSE_NOTHING, REFUSE_OPEN, REFUSE_READ } refuse;
static off_t bad_sector = -1;
static bool refuse_aio, hold_back;
static unsigned n_direct_reads;

int __real_aio_new(unsigned n, struct aio **ret_aio);
int __wrap_aio_new(unsigned n, struct aio **ret_aio);
int __real_aio_read(struct aio *aio, int fd, void *data, size_t length, uint64_t offset, void *tag);
int __wrap_aio_read(struct aio *aio, int fd, void *data, size_t length, uint64_t offset, void *tag);
size_t __real_aio_reap(struct aio *aio, struct aio_end *ends, size_t max);
size_t __wrap_aio_reap(struct aio *aio, struct aio_end *ends, size_t max);

int __wrap_aio_new(unsigned n, struct aio **ret_aio)
{
	return refuse_aio ? -ENOSYS : __real_aio_new(n, ret_aio);
}

int __wrap_aio_read(struct aio *aio, int fd, void *data, size_t length, uint64_t offset, void *tag)
{
	if (refuse == REFUSE_READ)
		return -EINVAL;
	n_direct_reads++;
	return __real_aio_read(aio, fd, data, length, offset, tag);
}

size_t __wrap_aio_reap(struct aio *aio, struct aio_end *ends, size_t max)
{
	eventfd_t ignored;

	if (!hold_back)
		return __real_aio_reap(aio, ends, max);
	(void)eventfd_read(aio_fd(aio), &ignored);
	return 0;
}

int __real_open64(const char *file, int flags, ...);
int __wrap_open64(const char *file, int flags, mode_t mode);
ssize_t __real_pread64(int fd, void *data, size_t length, off_t offset);
ssize_t __wrap_pread64(int fd, void *data, size_t length, off_t offset);

int __wrap_open64(const char *file, int flags, mode_t mode)
{
	if (flags & O_DIRECT && refuse == REFUSE_OPEN) {
		errno = EINVAL;
		return -1;
	}
	return __real_open64(file, flags, mode);
}

ssize_t __wrap_pread64(int fd, void *data, size_t length, off_t offset)
{
	bool direct = fcntl(fd, F_GETFL) & O_DIRECT;

	if (bad_sector >= offset && bad_sector < offset + (off_t)length) {
		errno = EIO;
		return -1;
	}
	/* The test folder's file system may be less strict than others are. */
	if (direct && (refuse == REFUSE_READ ||
			      ((uintptr_t)data | length | (size_t)offset) % 4096 != 0)) {
		errno = EINVAL;
		return -1;
	}
	n_direct_reads += direct;
	return __real_pread64(fd, data, length, offset);
}

static struct endpoint *open_direct(uint64_t size_bytes)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint_spec spec = {
		.kind = ENDPOINT_FILE, .path = path, .size_bytes = size_bytes, .direct = true};
	struct endpoint *endpoint = NULL;

	check_ok(&fault, endpoint_open(&spec, NULL, &endpoint, &fault));
	return endpoint;
}

/* Reads at all kinds of places, the end among them, into memory that is aligned and that is not.
 * The file is made of that many bytes. */
static void read_everywhere(struct endpoint *endpoint, const unsigned char *expected)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t size = endpoint_size(endpoint);
	const struct extent places[] = {{0, 512}, {512, 4096}, {4096, 4096}, {8192, 65536},
		{0, ENDPOINT_MAX_BYTES}, {3 * 512, ENDPOINT_MAX_BYTES}, {size - 512, 512},
		{size / 4096 * 4096, size % 4096}, {size - 512 * 9, 512 * 9},
		{size - MIN(size, ENDPOINT_MAX_BYTES), MIN(size, ENDPOINT_MAX_BYTES)}};
	unsigned char *data = aligned_alloc(4096, ENDPOINT_MAX_BYTES + 4096);

	for (size_t i = 0; i < ARRAY_SIZE(places) * 2; i++) {
		struct extent place = places[i / 2];
		unsigned char *to = data + i % 2 * 512;
		if (!place.length || place.offset > size || place.length > size - place.offset)
			continue;
		memset(to, 0xee, (size_t)place.length);
		check_ok(&fault, endpoint_read(endpoint, place, to, NULL, &fault));
		assert_memory_equal(to, expected + place.offset, place.length);
	}
	free(data);
}

static void make_file(unsigned char *data, size_t size)
{
	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	contract_fill(data, size, 5);
	assert_int_equal(write(fd, data, size), size);
}

static void odd_sizes_are_read_directly(void **state)
{
	static const size_t sizes[] = {512, 4096, 4096 + 512, (1 << 20) + 3 * 512, 3 << 20};
	unsigned char *data CLEANUP_FREE = malloc(4 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		make_file(data, sizes[i]);
		struct endpoint *endpoint CLEANUP_ENDPOINT = open_direct(sizes[i]);
		n_direct_reads = 0;
		read_everywhere(endpoint, data);
		assert_true(n_direct_reads > 0);
	}
}

static void holes_are_found_with_direct_reads(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char *data CLEANUP_FREE = malloc(4096), *read = aligned_alloc(4096, 8192);
	struct extent run, place = {4 << 20, 8192};
	uint64_t first = 0;

	(void)state;
	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_CLOEXEC);
	contract_fill(data, 4096, 6);
	/* In the page cache only: no block is allocated yet. */
	assert_int_equal(pwrite(fd, data, 4096, 4 << 20), 4096);
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_direct(CONTRACT_BYTES);
	check_ok(&fault, endpoint_next_data(endpoint, 0, &run, &fault));
	assert_int_equal(run.offset, 4 << 20);
	check_ok(&fault, endpoint_first_data(endpoint, place, &first, &fault));
	assert_int_equal(first, 4 << 20);
	check_ok(&fault, endpoint_read(endpoint, place, read, NULL, &fault));
	assert_memory_equal(read, data, 4096);
	free(read);
}

static void a_refused_direct_read_goes_through_the_page_cache(void **state)
{
	unsigned char *data CLEANUP_FREE = malloc(4 << 20);

	(void)state;
	make_file(data, (1 << 20) + 512);
	for (refuse = REFUSE_OPEN; refuse <= REFUSE_READ; refuse++) {
		struct endpoint *endpoint CLEANUP_ENDPOINT = open_direct((1 << 20) + 512);
		n_direct_reads = 0;
		read_everywhere(endpoint, data);
		assert_int_equal(n_direct_reads, 0);
	}
	refuse = REFUSE_NOTHING;
}

/* The error says where; what lies beside it can be read, and the endpoint goes on. */
static void a_bad_sector_fails_what_it_is_read_with(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char *data CLEANUP_FREE = malloc(1 << 20);
	unsigned char *read CLEANUP_FREE = aligned_alloc(4096, 65536);
	const struct extent bad = {65536, 65536}, before = {0, 65536}, after = {131072, 65536};

	(void)state;
	make_file(data, 1 << 20);
	for (int direct = 0; direct < 2; direct++) {
		struct endpoint_spec spec = {
			.kind = ENDPOINT_FILE, .path = path, .direct = direct == 1};
		struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
		check_ok(&fault, endpoint_open(&spec, NULL, &endpoint, &fault));
		bad_sector = 65536 + 4096;
		refuse = direct ? REFUSE_READ : REFUSE_NOTHING; /* aio reads by itself */
		assert_int_equal(endpoint_read(endpoint, bad, read, NULL, &fault), -EIO);
		assert_non_null(strstr(endpoint_error(endpoint), "read of 65536 bytes at 65536 "));
		assert_non_null(strstr(endpoint_error(endpoint), path));
		assert_non_null(strstr(endpoint_error(endpoint), strerror(EIO)));
		fault_clear(&fault);
		check_ok(&fault, endpoint_read(endpoint, before, read, NULL, &fault));
		assert_memory_equal(read, data, 65536);
		check_ok(&fault, endpoint_read(endpoint, after, read, NULL, &fault));
		assert_memory_equal(read, data + 131072, 65536);
		bad_sector = -1;
		refuse = REFUSE_NOTHING;
	}
}

static void a_file_that_shrank_ends_a_direct_read(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_direct(CONTRACT_BYTES);
	unsigned char *data = aligned_alloc(4096, 65536);

	(void)state;
	assert_int_equal(truncate(path, (1 << 20) + 512), 0);
	for (uint64_t at = (1 << 20) - 4096; at <= (2 << 20); at += 4096) {
		struct extent place = {at, 65536};
		assert_int_equal(endpoint_read(endpoint, place, data, NULL, &fault), -EIO);
		fault_clear(&fault);
	}
	free(data);
}

#define N_AT_ONCE 200

static void many_direct_reads_are_under_way_at_once(void **state)
{
	unsigned char *data CLEANUP_FREE = malloc(2 << 20);
	unsigned char *read CLEANUP_FREE = aligned_alloc(4096, N_AT_ONCE * 4096);
	struct counted many[N_AT_ONCE];

	(void)state;
	make_file(data, 2 << 20);
	for (int round = 0; round < 2; round++) {
		refuse_aio = round == 1;
		struct endpoint *endpoint CLEANUP_ENDPOINT = open_direct(2 << 20);
		memset(read, 0, N_AT_ONCE * 4096);
		for (size_t i = 0; i < N_AT_ONCE; i++) {
			many[i] = counted_new(
				ENDPOINT_READ, i * 37 % 512 * 4096, 4096, read + i * 4096);
			assert_int_equal(counted_submit(endpoint, &many[i]), 0);
		}
		assert_int_equal(endpoint_in_flight(endpoint) > 0, !refuse_aio);
		while (endpoint_in_flight(endpoint))
			assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, NULL), 0);
		for (size_t i = 0; i < N_AT_ONCE; i++) {
			assert_int_equal(many[i].n_ended, 1);
			assert_int_equal(many[i].error, 0);
			assert_memory_equal(read + i * 4096, data + i * 37 % 512 * 4096, 4096);
		}
	}
	refuse_aio = false;
}

static void closing_waits_for_direct_reads(void **state)
{
	unsigned char *read CLEANUP_FREE = aligned_alloc(4096, 32 * 65536);
	struct endpoint *endpoint = open_direct(CONTRACT_BYTES);
	struct counted many[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = counted_new(ENDPOINT_READ, i * 65536, 65536, read + i * 65536);
		assert_int_equal(counted_submit(endpoint, &many[i]), 0);
	}
	endpoint_close(endpoint);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		assert_int_equal(many[i].n_ended, 1);
		assert_int_equal(many[i].error, -ECANCELED);
	}
}

static void a_direct_read_that_takes_long_can_be_cancelled(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_direct(CONTRACT_BYTES);
	unsigned char *data CLEANUP_FREE = aligned_alloc(4096, 4096);
	struct counted counted = counted_new(ENDPOINT_READ, 0, 4096, data);
	struct extent place = {0, 4096};

	(void)state;
	hold_back = true;
	assert_int_equal(counted_submit(endpoint, &counted), 0);
	assert_int_equal(endpoint_service(endpoint, clock_now_usec(), cancel), -ETIMEDOUT);
	cancel_request(cancel, "enough");
	assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, cancel), -ECANCELED);
	assert_int_equal(counted.n_ended, 0);
	assert_int_equal(endpoint_read(endpoint, place, data, cancel, &fault), -ECANCELED);
	assert_int_equal(counted.n_ended, 1);
	hold_back = false;
}

static void direct_writing_is_refused(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint_spec spec = {
		.kind = ENDPOINT_FILE, .path = path, .direct = true, .writable = true};
	struct endpoint *endpoint = NULL;

	(void)state;
	assert_int_equal(endpoint_open(&spec, NULL, &endpoint, &fault), -EINVAL);
	assert_non_null(strstr(fault.params[0], path));
}

#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONTRACT_TESTS,
		FILE_TEST(what_is_no_image_is_refused),
		FILE_TEST(a_file_that_shrank_is_no_hole),
		FILE_TEST(a_run_that_is_discarded_meanwhile_does_not_end_the_map),
		FILE_TEST(odd_sizes_are_read_directly),
		FILE_TEST(holes_are_found_with_direct_reads),
		FILE_TEST(a_refused_direct_read_goes_through_the_page_cache),
		FILE_TEST(a_bad_sector_fails_what_it_is_read_with),
		FILE_TEST(a_file_that_shrank_ends_a_direct_read),
		FILE_TEST(many_direct_reads_are_under_way_at_once),
		FILE_TEST(closing_waits_for_direct_reads),
		FILE_TEST(a_direct_read_that_takes_long_can_be_cancelled),
		FILE_TEST(direct_writing_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
