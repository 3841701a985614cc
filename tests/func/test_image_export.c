/* SPDX-License-Identifier: Apache-2.0 */
/* Disks of a guest that runs, read through its own QEMU. */
#include "tests/lib/bare_guest.h"

#include "agent/copy/endpoint.h"
#include "agent/guest/guest_nbd.h"
#include "agent/guest/image_export.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB        (UINT64_C(1) << 20)
#define DISK_BYTES (16 * MIB)
#define JOB        "5b0ff9fc-3d24-4e1f-a4b7-5c0b5ad6d3c1"

/* Disk 0 is raw, disk 1 qcow2. */
static struct bare_guest bare;

static int setup(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	bare_guest_start(&bare, &(struct bare_guest_params){
					.n_disks = 2, .disk_bytes = DISK_BYTES, .has_qcow2 = true});
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bare_guest_clear(&bare);
	return 0;
}

static struct guest_node find_node(size_t disk)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct guest_node node = {0};

	check_ok(&fault, guest_node_find(bare.guest, bare.spec.disks[disk].path, &node, &fault));
	return node;
}

static struct image_export *open_export(void)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct guest_node node CLEANUP_GUEST_NODE = find_node(1);
	struct image_export *image = NULL;

	check_ok(&fault, image_export_open(bare.guest, JOB, &node, &image, &fault));
	return image;
}

static struct endpoint *open_endpoint(const struct image_export *image)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const struct endpoint_spec spec = {.kind = ENDPOINT_NBD,
		.socket_path = image_export_socket(image),
		.export_name = image_export_name(image),
		.size_bytes = DISK_BYTES};
	struct endpoint *endpoint = NULL;

	check_ok(&fault, endpoint_open(&spec, NULL, &endpoint, &fault));
	return endpoint;
}

static size_t count_exports(void)
{
	struct value *exports CLEANUP_VALUE = bare_guest_ask(&bare, "query-block-exports", NULL);

	return exports->array.n_items;
}

static void a_disk_is_found_by_its_file(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct guest_node raw CLEANUP_GUEST_NODE = find_node(0);
	struct guest_node qcow2 CLEANUP_GUEST_NODE = find_node(1);
	struct guest_node none CLEANUP_GUEST_NODE = {0};

	(void)state;
	assert_string_equal(raw.name, "d0");
	assert_true(raw.is_raw);
	assert_true(raw.in_iothread);
	assert_false(raw.direct);
	assert_string_equal(qcow2.name, "d1");
	assert_false(qcow2.is_raw);
	assert_false(qcow2.in_iothread);
	assert_int_equal(guest_node_find(bare.guest, "/nonexistent", &none, &fault), -ENOENT);
}

static void what_the_guest_wrote_is_read_and_the_rest_is_a_hole(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char data[4096], expected[4096];
	struct extent found;

	(void)state;
	bare_guest_io(&bare, 1, "write -P 7 5M 64k");
	struct image_export *image = open_export();
	struct endpoint *endpoint = open_endpoint(image);
	check_ok(&fault, endpoint_next_data(endpoint, 0, &found, &fault));
	assert_int_equal(found.offset, 5 * MIB);
	assert_int_equal(found.length, 65536);
	/* It goes on writing, and is seen. */
	bare_guest_io(&bare, 1, "write -P 9 9M 64k");
	memset(expected, 9, sizeof(expected));
	check_ok(&fault, endpoint_read(endpoint, (struct extent){9 * MIB, sizeof(data)}, data, NULL,
				 &fault));
	assert_memory_equal(data, expected, sizeof(data));
	check_ok(&fault, endpoint_next_data(endpoint, 6 * MIB, &found, &fault));
	assert_int_equal(found.offset, 9 * MIB);
	endpoint_close(endpoint);
	image_export_close(image);
	assert_int_equal(count_exports(), 0);
	bare_guest_io(&bare, 1, "write -P 1 0 64k");
	assert_true(bare_guest_is_running(&bare));
}

/* QEMU 7.2 aborts when the client of such an export goes. */
static void a_node_in_an_iothread_is_never_exported(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct guest_node node CLEANUP_GUEST_NODE = find_node(0);
	struct image_export *image = NULL;

	(void)state;
	assert_int_equal(image_export_open(bare.guest, JOB, &node, &image, &fault), -EOPNOTSUPP);
	assert_int_equal(count_exports(), 0);
}

static void closing_does_not_wait_for_a_client(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct image_export *image = open_export();
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_endpoint(image);
	unsigned char data[512];

	(void)state;
	image_export_close(image);
	assert_int_equal(count_exports(), 0);
	assert_int_equal(
		endpoint_read(endpoint, (struct extent){0, 512}, data, NULL, &fault), -ECONNRESET);
	assert_true(bare_guest_is_running(&bare));
}

static void a_disk_is_read_twice_at_a_time(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct image_export *copy = open_export();
	struct image_export *pass = open_export();
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_endpoint(pass);
	unsigned char data[512];

	(void)state;
	assert_int_equal(count_exports(), 2);
	image_export_close(copy);
	assert_int_equal(count_exports(), 1);
	check_ok(&fault, endpoint_read(endpoint, (struct extent){0, 512}, data, NULL, &fault));
	image_export_close(pass);
	assert_int_equal(count_exports(), 0);
}

static void what_a_dead_agent_left_is_found_by_its_job(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct image_export *left[] = {open_export(), open_export()};

	(void)state;
	bare_guest_do(&bare, "block-export-add",
		"{\"id\":\"other\",\"type\":\"nbd\",\"node-name\":\"d1\",\"name\":\"other\"}");
	assert_int_equal(count_exports(), 3);
	check_ok(&fault, image_export_forget(bare.guest, "another-job", &fault));
	assert_int_equal(count_exports(), 3);
	check_ok(&fault, image_export_forget(bare.guest, JOB, &fault));
	check_ok(&fault, image_export_forget(bare.guest, JOB, &fault));
	assert_int_equal(count_exports(), 1);
	image_export_close(left[0]);
	image_export_close(left[1]);
	assert_int_equal(count_exports(), 1);
}

static void a_server_that_runs_is_used_and_a_strangers_is_not(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *first CLEANUP_FREE = NULL;
	char *second CLEANUP_FREE = NULL;
	struct stat st;

	(void)state;
	check_ok(&fault, guest_nbd_ensure(bare.guest, &first, &fault));
	check_ok(&fault, guest_nbd_ensure(bare.guest, &second, &fault));
	assert_string_equal(first, second);
	assert_int_equal(stat(first, &st), 0);
	assert_int_equal(unlink(first), 0);
	assert_int_equal(guest_nbd_ensure(bare.guest, NULL, &fault), -EBUSY);
}

static void a_guest_that_is_gone_is_no_obstacle(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct image_export *image = open_export();
	struct endpoint *endpoint = open_endpoint(image);
	struct guest_node node CLEANUP_GUEST_NODE = {0};
	unsigned char data[512];

	(void)state;
	bare_guest_kill(&bare);
	assert_int_equal(
		endpoint_read(endpoint, (struct extent){0, 512}, data, NULL, &fault), -ECONNRESET);
	endpoint_close(endpoint);
	image_export_close(image);
	assert_true(guest_node_find(bare.guest, bare.spec.disks[1].path, &node, &fault) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_disk_is_found_by_its_file),
		TEST(what_the_guest_wrote_is_read_and_the_rest_is_a_hole),
		TEST(a_node_in_an_iothread_is_never_exported),
		TEST(closing_does_not_wait_for_a_client),
		TEST(a_disk_is_read_twice_at_a_time),
		TEST(what_a_dead_agent_left_is_found_by_its_job),
		TEST(a_server_that_runs_is_used_and_a_strangers_is_not),
		TEST(a_guest_that_is_gone_is_no_obstacle),
	};

	if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0 ||
		access("/usr/bin/qemu-img", X_OK) < 0) {
		print_message("QEMU is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
