/* SPDX-License-Identifier: Apache-2.0 */
/* With the real qemu-img and qemu-nbd. */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "target/image.h"
#include "target/image_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define QEMU_IMG "/usr/bin/qemu-img"
#define QEMU_NBD "/usr/bin/qemu-nbd"
#define MIB      (UINT64_C(1) << 20)

static char dir[] = "/tmp/ferry-image-XXXXXX";
static char *path;
static char *folder;

static int make_dir(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_NONE);
	if (!mkdtemp(dir))
		return -1;
	path = xasprintf("%s/a,b disk.qcow2", dir);
	folder = xasprintf("%s/server", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	free(path);
	free(folder);
	return rmdir(dir);
}

static int remove_image(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static void the_name_decides_the_format(void **state)
{
	enum image_format format = IMAGE_RAW;

	(void)state;
	assert_int_equal(image_format_of("/sr/disk.qcow2"), IMAGE_QCOW2);
	assert_int_equal(image_format_of("/sr/disk.qcow2.raw"), IMAGE_RAW);
	assert_int_equal(image_format_of("/sr.qcow2/disk.img"), IMAGE_RAW);
	assert_int_equal(image_format_of(".qcow2"), IMAGE_RAW);
	assert_int_equal(image_format_parse("qcow2", &format), 0);
	assert_int_equal(format, IMAGE_QCOW2);
	assert_int_equal(image_format_parse("vhd", &format), -EINVAL);
	assert_int_equal(image_format_parse("", &format), -EINVAL);
}

static void a_new_image_is_private_empty_and_of_the_size_asked(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct image_info info;
	struct stat st;
	uint64_t bytes = 1;

	(void)state;
	check_ok(&fault, image_create(QEMU_IMG, path, IMAGE_QCOW2, 64 * MIB + 512, &fault));
	check_ok(&fault, image_inspect(path, &info, &fault));
	assert_int_equal(info.format, IMAGE_QCOW2);
	assert_int_equal(info.virtual_bytes, 64 * MIB + 512);
	assert_true(info.file_bytes < MIB && info.allocated_bytes < MIB);
	check_ok(&fault, image_data_bytes(path, &bytes, &fault));
	assert_int_equal(bytes, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(image_create(QEMU_IMG, path, IMAGE_QCOW2, MIB, &fault), -EEXIST);
}

static void an_image_grows_and_never_shrinks(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct image_info info;

	(void)state;
	check_ok(&fault, image_create(QEMU_IMG, path, IMAGE_QCOW2, MIB, &fault));
	check_ok(&fault, image_grow(QEMU_IMG, path, 3 * MIB, &fault));
	assert_int_equal(image_grow(QEMU_IMG, path, 2 * MIB, &fault), -EINVAL);
	assert_non_null(strstr(fault.params[0], "cannot shrink"));
	check_ok(&fault, image_inspect(path, &info, &fault));
	assert_int_equal(info.virtual_bytes, 3 * MIB);
}

static void what_cannot_be_made_leaves_no_file(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	assert_int_equal(image_create(NULL, path, IMAGE_QCOW2, MIB, &fault), -EOPNOTSUPP);
	assert_int_equal(image_create(QEMU_IMG, path, IMAGE_QCOW2, 100, &fault), -EINVAL);
	assert_int_equal(image_create("/nonexistent/img", path, IMAGE_QCOW2, MIB, &fault), -ENOENT);
	/* The tool itself says no. */
	assert_int_equal(
		image_create(QEMU_IMG, path, IMAGE_QCOW2, INT64_MAX / 512 * 512, &fault), -EIO);
	assert_non_null(strstr(fault.params[0], "image.tool"));
	assert_int_equal(access(path, F_OK), -1);
}

/* --- The server ---------------------------------------------------------------------------------
 */

static int greet(const char *socket_path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char magic[8] = {0};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return recv(fd, magic, 8, MSG_WAITALL) == 8 && memcmp(magic, "NBDMAGIC", 8) == 0 ? 0 : -EIO;
}

static void a_server_answers_until_it_is_stopped(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const struct image_server_params params = {
		.program = QEMU_NBD, .folder = folder, .image = path};
	struct image_server *server = NULL, *other = NULL;

	(void)state;
	check_ok(&fault, image_create(QEMU_IMG, path, IMAGE_QCOW2, MIB, &fault));
	check_ok(&fault, image_server_start(&params, NULL, &server, &fault));
	assert_int_equal(greet(image_server_socket(server)), 0);
	assert_int_equal(image_server_start(&params, NULL, &other, &fault), -EEXIST);
	char *socket_path CLEANUP_FREE = xstrdup(image_server_socket(server));
	assert_null(image_server_stop(server));
	assert_int_equal(greet(socket_path), -ENOENT);
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(image_server_forget_folder(folder), 0);
}

static void a_server_that_does_not_start_leaves_nothing(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct image_server_params params = {.program = QEMU_NBD, .folder = folder, .image = path};
	struct image_server *server = NULL;

	(void)state;
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "QFI\xfb nothing", 12), 12);
	assert_int_equal(image_server_start(&params, NULL, &server, &fault), -EIO);
	assert_non_null(strstr(fault.params[0], "image.server"));
	params.program = "/nonexistent/nbd";
	assert_int_equal(image_server_start(&params, NULL, &server, &fault), -ENOENT);
	params.program = "/usr/bin/sleep"; /* ends at once: the arguments are none of its own */
	assert_int_equal(image_server_start(&params, NULL, &server, &fault), -EIO);
	cancel_request(cancel, "enough");
	params.program = QEMU_NBD;
	assert_int_equal(image_server_start(&params, cancel, &server, &fault), -ECANCELED);
	assert_int_equal(access(folder, F_OK), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_name_decides_the_format),
		cmocka_unit_test_teardown(
			a_new_image_is_private_empty_and_of_the_size_asked, remove_image),
		cmocka_unit_test_teardown(an_image_grows_and_never_shrinks, remove_image),
		cmocka_unit_test_teardown(what_cannot_be_made_leaves_no_file, remove_image),
		cmocka_unit_test_teardown(a_server_answers_until_it_is_stopped, remove_image),
		cmocka_unit_test_teardown(
			a_server_that_does_not_start_leaves_nothing, remove_image),
	};

	if (access(QEMU_IMG, X_OK) < 0 || access(QEMU_NBD, X_OK) < 0) {
		print_message("qemu-img and qemu-nbd are not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
