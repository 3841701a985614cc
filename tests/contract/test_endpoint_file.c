/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/endpoint_contract.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONTRACT_TESTS,
		cmocka_unit_test_setup_teardown(what_is_no_image_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_shrank_is_no_hole, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
