/* SPDX-License-Identifier: Apache-2.0 */
#include "target/image.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/run.h"
#include "target/disk.h"
#include "target/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define TOOL_USEC (60 * USEC_PER_SEC)

static const struct {
	const char *name;
	const char *suffix;
} formats[N_IMAGE_FORMATS] = {
	[IMAGE_RAW] = {"raw", ".raw"},
	[IMAGE_QCOW2] = {"qcow2", ".qcow2"},
};

enum image_format image_format_of(const char *name)
{
	const char *suffix = formats[IMAGE_QCOW2].suffix;
	size_t length = strlen(name), n = strlen(suffix);

	return length > n && strcmp(name + length - n, suffix) == 0 ? IMAGE_QCOW2 : IMAGE_RAW;
}

const char *image_format_name(enum image_format format)
{
	return formats[format].name;
}

const char *image_format_suffix(enum image_format format)
{
	return formats[format].suffix;
}

int image_format_parse(const char *name, enum image_format *ret_format)
{
	for (size_t i = 0; i < N_IMAGE_FORMATS; i++) {
		if (strcmp(formats[i].name, name) != 0)
			continue;
		*ret_format = (enum image_format)i;
		return 0;
	}
	return -EINVAL;
}

int image_inspect(const char *path, struct image_info *ret_info, struct fault *fault)
{
	struct disk_info disk;
	struct image_info info = {.format = image_format_of(path)};
	int r = disk_inspect(path, &disk, fault);

	if (r == -ELOOP)
		return fault_text(fault, r, "it is a symbolic link, not a regular file");
	if (r < 0)
		return r;
	if (!disk.regular)
		return fault_text(fault, -EINVAL, "it is not a regular file");
	if (info.format == IMAGE_RAW && !disk.whole_sectors)
		return fault_text(fault, -EINVAL, "%s",
			disk.size_bytes ? "its size is not a multiple of 512" : "it is empty");
	info.virtual_bytes = info.file_bytes = disk.size_bytes;
	info.allocated_bytes = disk.allocated_bytes;
	if (info.format == IMAGE_QCOW2) {
		struct qcow2_header header;
		r = qcow2_inspect(path, &header, fault);
		if (r < 0)
			return r;
		info.virtual_bytes = header.virtual_bytes;
	}
	*ret_info = info;
	return 0;
}

int image_data_bytes(const char *path, uint64_t *ret_bytes, struct fault *fault)
{
	struct image_info info;

	if (image_format_of(path) == IMAGE_QCOW2)
		return qcow2_data_bytes(path, ret_bytes, fault);
	int r = image_inspect(path, &info, fault);
	if (r == 0)
		*ret_bytes = info.allocated_bytes;
	return r;
}

/* --- qemu-img -----------------------------------------------------------------------------------
 */

static int check_program(const char *program, const char *path, struct fault *fault)
{
	if (program)
		return 0;
	return fault_text(fault, -EOPNOTSUPP,
		"image %s: this host knows no qemu-img, which its format needs", path);
}

/* argv[0] is the program; it may write to the file at path, which exists. */
static int run_tool(const char *const *argv, const char *path, struct fault *fault)
{
	const struct run_path paths[] = {{.path = path, .writable = true}};
	const struct run_params params = {
		.argv = argv,
		.paths = paths,
		.n_paths = ARRAY_SIZE(paths),
		.deny_connect = true,
		.log_id = "image.tool",
	};
	struct child *child CLEANUP_CHILD = NULL;
	int r = run_start(&params, &child, fault);

	if (r < 0)
		return r;
	if (run_wait(child, clock_deadline(TOOL_USEC)) < 0)
		return fault_text(fault, -ETIMEDOUT, "image %s: %s %s did not end within %d s",
			path, argv[0], argv[1], (int)(TOOL_USEC / USEC_PER_SEC));
	if (run_status(child) != 0)
		return fault_text(fault, -EIO,
			"image %s: %s %s failed; what it said is in the log (image.tool)", path,
			argv[0], argv[1]);
	return 0;
}

static int sync_file(const char *path)
{
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int check_size(const char *path, uint64_t size_bytes, struct fault *fault)
{
	if (size_bytes && size_bytes % DISK_SECTOR == 0 && size_bytes <= INT64_MAX)
		return 0;
	return fault_text(fault, -EINVAL,
		"image %s: %" PRIu64 " bytes is not a multiple of %d above 0", path, size_bytes,
		DISK_SECTOR);
}

/* The file is made here, so that the program needs no right to the directory. */
static int create_with_tool(const char *program, const char *path, enum image_format format,
	uint64_t size_bytes, struct fault *fault)
{
	char *size CLEANUP_FREE = xasprintf("%" PRIu64, size_bytes);
	const char *const argv[] = {
		program, "create", "-q", "-f", image_format_name(format), path, size, NULL};
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return fault_errno(fault, -errno, "image %s: create", path);
	int r = run_tool(argv, path, fault);
	if (r == 0 && (r = fsync(fd) < 0 ? -errno : io_sync_parent(path)) < 0)
		fault_errno(fault, r, "image %s: make it durable", path);
	if (r < 0)
		unlink(path);
	return r;
}

int image_create(const char *program, const char *path, enum image_format format,
	uint64_t size_bytes, struct fault *fault)
{
	if (format == IMAGE_RAW)
		return disk_create(path, size_bytes, fault);
	int r = check_program(program, path, fault);
	if (r == 0)
		r = check_size(path, size_bytes, fault);
	return r < 0 ? r : create_with_tool(program, path, format, size_bytes, fault);
}

int image_grow(const char *program, const char *path, uint64_t size_bytes, struct fault *fault)
{
	enum image_format format = image_format_of(path);
	char *size CLEANUP_FREE = xasprintf("%" PRIu64, size_bytes);
	const char *const argv[] = {
		program, "resize", "-q", "-f", image_format_name(format), path, size, NULL};
	struct image_info info;

	if (format == IMAGE_RAW)
		return disk_grow(path, size_bytes, fault);
	int r = check_program(program, path, fault);
	if (r == 0)
		r = check_size(path, size_bytes, fault);
	if (r == 0)
		r = image_inspect(path, &info, fault);
	if (r == 0 && size_bytes < info.virtual_bytes)
		r = fault_text(fault, -EINVAL,
			"image %s: its disk has %" PRIu64 " bytes and cannot shrink to %" PRIu64,
			path, info.virtual_bytes, size_bytes);
	if (r == 0)
		r = run_tool(argv, path, fault);
	if (r == 0 && (r = sync_file(path)) < 0)
		fault_errno(fault, r, "image %s: make it durable", path);
	return r;
}
