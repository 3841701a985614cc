/* SPDX-License-Identifier: Apache-2.0 */
/* A raw image in a file or block device. Requests are done in place: the page cache reads ahead,
 * and each copy thread has its own descriptor. Only direct reads, which no cache makes short, are
 * asynchronous: a round of small ones takes as long as the disk needs, not as many waits. */
#include "agent/copy/aio.h"
#include "agent/copy/behind.h"
#include "agent/copy/direct.h"
#include "agent/copy/endpoint_impl.h"
#include "base/alloc.h"
#include "base/inject.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ZEROS_BYTES ((size_t)64 << 10)
#define MAX_READING 64

struct endpoint_file {
	struct endpoint base;
	char *path;
	int fd;
	bool is_device;
	struct direct direct;
	struct behind behind;
	struct aio *aio;                  /* NULL: all is done in place */
	struct endpoint_request *reading; /* under way in aio, linked by next */
};

static void end_reading(struct endpoint_file *file, struct endpoint_request *request, int error)
{
	struct endpoint_request **link = &file->reading;

	while (*link != request)
		link = &(*link)->next;
	*link = request->next;
	file->base.n_in_flight--;
	request->done(request, error);
}

/* Nothing can be taken back: it waits for what is in flight. */
static void file_abort(struct endpoint *endpoint)
{
	struct endpoint_file *file = (struct endpoint_file *)endpoint;

	file->aio = aio_free(file->aio);
	while (file->reading)
		end_reading(file, file->reading, -ECANCELED);
}

static void file_close(struct endpoint *endpoint)
{
	struct endpoint_file *file = (struct endpoint_file *)endpoint;

	file_abort(endpoint);
	behind_end(&file->behind, file->fd);
	close(file->fd);
	direct_clear(&file->direct);
	free(file->path);
	free(file);
}

/* SEEK_HOLE and SEEK_DATA take a file that was cut short for one that ends in a hole; without this
 * check a copy would go on with zeros. */
static int check_size(struct endpoint_file *file, struct fault *fault)
{
	struct stat st;

	if (file->is_device)
		return 0;
	if (fstat(file->fd, &st) < 0)
		return fault_errno(fault, -errno, "stat of %s", file->path);
	if ((uint64_t)st.st_size == file->base.size_bytes)
		return 0;
	return fault_text(fault, endpoint_fail(&file->base, -EIO, "size of %s changed", file->path),
		"%s: its size changed from %llu to %llu bytes while it was in use; no other "
		"program may touch a disk that is being moved",
		file->path, (unsigned long long)file->base.size_bytes,
		(unsigned long long)st.st_size);
}

static int fail_map(struct endpoint_file *file, uint64_t offset, struct fault *fault)
{
	int error = errno;

	endpoint_fail(&file->base, -EIO, "map of %s at %llu: %s", file->path,
		(unsigned long long)offset, strerror(error));
	return fault_text(fault, -EIO, "%s", file->base.error);
}

static int file_first_data(
	struct endpoint *endpoint, struct extent extent, uint64_t *ret_offset, struct fault *fault)
{
	struct endpoint_file *file = (struct endpoint_file *)endpoint;
	uint64_t offset = extent.offset;
	off_t start = lseek(file->fd, (off_t)offset, SEEK_DATA);

	if (start < 0 && errno == EINVAL) /* A file system or device that cannot tell. */
		start = (off_t)offset;
	else if (start < 0 && errno == ENXIO)
		start = (off_t)endpoint->size_bytes;
	if (start < 0)
		return fail_map(file, offset, fault);
	*ret_offset = MAX((uint64_t)start / ENDPOINT_SECTOR * ENDPOINT_SECTOR, offset);
	return check_size(file, fault);
}

static int file_next_data(
	struct endpoint *endpoint, uint64_t offset, struct extent *ret_extent, struct fault *fault)
{
	struct endpoint_file *file = (struct endpoint_file *)endpoint;
	uint64_t size = endpoint->size_bytes, start;
	struct extent rest = {offset, size - offset};
	int r = file_first_data(endpoint, rest, &start, fault);

	if (r < 0)
		return r;
	if (start >= size) {
		*ret_extent = (struct extent){size, 0};
		return 0;
	}
	off_t end = lseek(file->fd, (off_t)start, SEEK_HOLE);
	if (end < 0 && errno == EINVAL)
		end = (off_t)size;
	if (end < 0)
		return fail_map(file, start, fault);
	/* A guest may have discarded the run since it was found. No length at all would say that
	 * nothing follows either; a sector that is a hole reads as zeros. */
	uint64_t to = MAX((uint64_t)end, start + 1);
	to = (to + ENDPOINT_SECTOR - 1) / ENDPOINT_SECTOR * ENDPOINT_SECTOR;
	*ret_extent = (struct extent){start, MIN(to, size) - start};
	return 0;
}

static int write_zeros(int fd, struct extent extent)
{
	static const unsigned char zeros[ZEROS_BYTES];

	while (extent.length) {
		size_t n = (size_t)MIN(extent.length, ZEROS_BYTES);
		int r = io_pwrite_full(fd, zeros, n, extent.offset);
		if (r < 0)
			return r;
		extent.offset += n;
		extent.length -= n;
	}
	return 0;
}

static int punch(int fd, struct extent extent)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)extent.offset,
		    (off_t)extent.length) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENODEV && errno != ENOSYS)
		return -errno;
	return write_zeros(fd, extent);
}

static int transfer(struct endpoint_file *file, const struct endpoint_request *request)
{
	size_t length = (size_t)request->extent.length;

	switch (request->op) {
	case ENDPOINT_READ:
		behind_read(&file->behind, file->fd, request->extent.offset, length);
		return direct_read(
			&file->direct, file->fd, request->data, length, request->extent.offset);
	case ENDPOINT_WRITE:
		return io_pwrite_full(file->fd, request->data, length, request->extent.offset);
	case ENDPOINT_ZERO:
	case ENDPOINT_DISCARD:
		return punch(file->fd, request->extent);
	case ENDPOINT_FLUSH:
		return fdatasync(file->fd) < 0 ? -errno : 0;
	}
	return -EINVAL;
}

static int explain(struct endpoint_file *file, const struct endpoint_request *request, int error)
{
	endpoint_fail(&file->base, error, "%s of %llu bytes at %llu of %s: %s",
		endpoint_op_name(request->op), (unsigned long long)request->extent.length,
		(unsigned long long)request->extent.offset, file->path,
		error == -ENODATA ? "the file ends before" : strerror(-error));
	return error == -ENODATA ? -EIO : error;
}

static int perform(struct endpoint_file *file, const struct endpoint_request *request)
{
	int r = transfer(file, request);

	return r < 0 ? explain(file, request, r) : r;
}

static bool start_reading(struct endpoint_file *file, struct endpoint_request *request)
{
	if (!file->aio || request->op != ENDPOINT_READ ||
		!direct_is_aligned(&file->direct, request->data, request->extent.length,
			request->extent.offset) ||
		aio_read(file->aio, file->fd, request->data, (size_t)request->extent.length,
			request->extent.offset, request) < 0)
		return false;
	request->next = file->reading;
	file->reading = request;
	file->base.n_in_flight++;
	return true;
}

static int file_submit(struct endpoint *endpoint, struct endpoint_request *request)
{
	struct endpoint_file *file = (struct endpoint_file *)endpoint;

	int r = INJECT_RANGE(request->extent.offset, request->extent.length, "file.%s",
		endpoint_op_name(request->op));

	if (r < 0)
		request->done(request, explain(file, request, r));
	else if (!start_reading(file, request))
		request->done(request, perform(file, request));
	return 0;
}

static int file_service(struct endpoint *endpoint, uint64_t deadline_usec, struct cancel *cancel)
{
	struct endpoint_file *file = (struct endpoint_file *)endpoint;
	struct pollfd ended = {.fd = aio_fd(file->aio), .events = POLLIN};
	struct aio_end ends[MAX_READING];
	size_t n;

	while ((n = aio_reap(file->aio, ends, MAX_READING)) == 0) {
		int r = cancel_poll(cancel, &ended, 1, deadline_usec);
		if (r <= 0)
			return r < 0 ? r : -ETIMEDOUT;
	}
	for (size_t i = 0; i < n; i++) {
		struct endpoint_request *request = ends[i].tag;
		/* Whatever is not plain success is tried, and explained, in place. */
		bool complete = !INJECT("file.aio.short") &&
				ends[i].result == (int64_t)request->extent.length;
		end_reading(file, request, complete ? 0 : perform(file, request));
	}
	return 0;
}

static const struct endpoint_ops file_ops = {
	.close = file_close,
	.next_data = file_next_data,
	.first_data = file_first_data,
	.submit = file_submit,
	.service = file_service,
	.abort = file_abort,
};

/* The size of what was opened, or why it is no disk image. */
static int inspect(int fd, const struct endpoint_spec *spec, bool *ret_is_device,
	uint64_t *ret_size, struct fault *fault)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fault_errno(fault, -errno, "stat of %s", spec->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return fault_text(fault, -EINVAL,
			"%s is neither a regular file nor a block device: no disk image",
			spec->path);
	off_t end = S_ISBLK(st.st_mode) ? lseek(fd, 0, SEEK_END) : st.st_size;
	if (end < 0)
		return fault_errno(fault, -errno, "size of %s", spec->path);
	uint64_t size = (uint64_t)end;
	if (!size || size % ENDPOINT_SECTOR)
		return fault_text(fault, -EINVAL,
			"%s has %llu bytes: a disk has one or more whole sectors of %d", spec->path,
			(unsigned long long)size, ENDPOINT_SECTOR);
	if (spec->size_bytes && spec->size_bytes != size)
		return fault_text(fault, -EIO, "%s has %llu bytes, not the %llu expected",
			spec->path, (unsigned long long)size, (unsigned long long)spec->size_bytes);
	*ret_is_device = S_ISBLK(st.st_mode);
	*ret_size = size;
	return 0;
}

int endpoint_file_open(
	const struct endpoint_spec *spec, struct endpoint **ret_endpoint, struct fault *fault)
{
	/* O_NONBLOCK: opening a FIFO that stands there by mistake must not hang. */
	int flags = (spec->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct direct direct = {0};
	int fd CLEANUP_CLOSE =
		spec->direct ? direct_open(&direct, spec->path, flags) : open(spec->path, flags);
	bool is_device = false;
	uint64_t size = 0;

	if (spec->direct && spec->writable)
		return fault_text(fault, -EINVAL, "%s: O_DIRECT is for reading only", spec->path);
	if (fd < 0)
		return fault_errno(fault, -errno, "cannot open the disk image %s for %s",
			spec->path, spec->writable ? "writing" : "reading");
	int r = inspect(fd, spec, &is_device, &size, fault);
	if (r < 0)
		return r;
	struct endpoint_file *file = xcalloc(1, sizeof(*file));
	file->base.ops = &file_ops;
	file->base.size_bytes = size;
	file->base.block_bytes = ENDPOINT_SECTOR;
	file->base.writable = spec->writable;
	file->path = xstrdup(spec->path);
	file->is_device = is_device;
	file->direct = direct;
	if (direct.on)
		(void)aio_new(MAX_READING, &file->aio);
	else if (!spec->writable)
		behind_begin(&file->behind, fd, size);
	file->fd = TAKE_FD(fd);
	*ret_endpoint = &file->base;
	return 0;
}
