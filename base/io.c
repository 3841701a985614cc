/* SPDX-License-Identifier: Apache-2.0 */
#include "base/io.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/inject.h"
#include "base/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int io_pread_full(int fd, void *data, size_t length, uint64_t offset)
{
	char *at = data;

	while (length) {
		ssize_t n = pread(fd, at, length, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		at += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

int io_pwrite_full(int fd, const void *data, size_t length, uint64_t offset)
{
	const char *at = data;

	while (length) {
		size_t most = length > 1 && INJECT("io.pwrite.short") < 0 ? length / 2 : length;
		ssize_t n = pwrite(fd, at, most, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		at += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

int io_write_full(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t n = write(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

int io_read_file(const char *path, size_t max_bytes, struct buf *buf)
{
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
	struct buf content CLEANUP_BUF = BUF_INIT;
	char chunk[8192];

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		if (content.length + (size_t)n > max_bytes)
			return -EFBIG;
		buf_append(&content, chunk, (size_t)n);
	}
	buf_append(buf, content.data, content.length);
	return 0;
}

int io_sync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir CLEANUP_FREE = !slash          ? xstrdup(".")
				 : slash == path ? xstrdup("/")
						 : xstrndup(path, (size_t)(slash - path));
	int fd CLEANUP_CLOSE = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int io_replace_file(const char *path, const void *data, size_t length, mode_t mode)
{
	char *tag CLEANUP_FREE = secret_new(8);
	char *temporary CLEANUP_FREE = xasprintf("%s.%s.tmp", path, tag);
	int fd CLEANUP_CLOSE =
		open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return -errno;
	int r = io_write_full(fd, data, length);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temporary);
		return r;
	}
	return io_sync_parent(path);
}

int io_ensure_dir(const char *path, mode_t mode)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		return io_sync_parent(path);
	if (errno != EEXIST)
		return -errno;
	if (stat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}
