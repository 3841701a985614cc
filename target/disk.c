/* SPDX-License-Identifier: Apache-2.0 */
#include "target/disk.h"

#include "base/cleanup.h"
#include "base/inject.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int check_size(const char *path, uint64_t size_bytes, struct fault *fault)
{
	if (size_bytes == 0 || size_bytes % DISK_SECTOR != 0)
		return fault_text(fault, -EINVAL,
			"disk %s: %" PRIu64 " bytes is not a multiple of %d above 0", path,
			size_bytes, DISK_SECTOR);
	if (size_bytes > INT64_MAX)
		return fault_errno(fault, -EFBIG, "disk %s: %" PRIu64 " bytes", path, size_bytes);
	return 0;
}

static int set_size(int fd, uint64_t size_bytes)
{
	if (ftruncate(fd, (off_t)size_bytes) < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int disk_create(const char *path, uint64_t size_bytes, struct fault *fault)
{
	int r = check_size(path, size_bytes, fault);

	if (r < 0)
		return r;
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fault_errno(fault, -errno, "disk %s: create", path);
	r = INJECT("disk.create");
	if (r == 0)
		r = set_size(fd, size_bytes);
	if (r == 0)
		r = io_sync_parent(path);
	if (r == 0)
		return 0;
	unlink(path);
	return fault_errno(fault, r, "disk %s: make it %" PRIu64 " bytes", path, size_bytes);
}

int disk_remove(const char *path, struct fault *fault)
{
	int r = INJECT("disk.remove");

	if (r < 0)
		return fault_errno(fault, r, "disk %s: remove", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return fault_errno(fault, -errno, "disk %s: remove", path);
	r = io_sync_parent(path);
	/* The folder may have gone with the disk. */
	if (r < 0 && r != -ENOENT)
		return fault_errno(fault, r, "disk %s: sync its folder", path);
	return 0;
}

int disk_grow(const char *path, uint64_t size_bytes, struct fault *fault)
{
	struct stat st;
	int r = check_size(path, size_bytes, fault);

	if (r < 0)
		return r;
	/* O_NONBLOCK: opening something that is not a file must not wait for its other end. */
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fault_errno(fault, -errno, "disk %s: open to grow", path);
	if (!S_ISREG(st.st_mode))
		return fault_text(fault, -EINVAL, "disk %s: not a regular file", path);
	if (size_bytes < (uint64_t)st.st_size)
		return fault_text(fault, -EINVAL,
			"disk %s: has %jd bytes and cannot shrink to %" PRIu64, path,
			(intmax_t)st.st_size, size_bytes);
	r = set_size(fd, size_bytes);
	return r < 0 ? fault_errno(fault, r, "disk %s: grow to %" PRIu64 " bytes", path, size_bytes)
		     : 0;
}

int disk_inspect(const char *path, struct disk_info *ret_info, struct fault *fault)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return fault_errno(fault, -errno, "disk %s", path);
	if (S_ISLNK(st.st_mode))
		return fault_text(
			fault, -ELOOP, "disk %s: is a symbolic link, which is not followed", path);
	uint64_t size = (uint64_t)st.st_size;
	*ret_info = (struct disk_info){
		.size_bytes = size,
		.allocated_bytes = (uint64_t)st.st_blocks * 512,
		.regular = S_ISREG(st.st_mode),
		.whole_sectors = size > 0 && size % DISK_SECTOR == 0,
	};
	return 0;
}

int disk_space(
	const char *dir, uint64_t *ret_size_bytes, uint64_t *ret_free_bytes, struct fault *fault)
{
	struct statvfs st;

	if (statvfs(dir, &st) < 0)
		return fault_errno(fault, -errno, "file system of %s", dir);
	*ret_size_bytes = (uint64_t)st.f_blocks * st.f_frsize;
	*ret_free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}
