/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/direct.h"

#include "agent/copy/endpoint.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is read for a request that is not aligned: rounded outward. */
#define BOUNCE_BYTES (ENDPOINT_MAX_BYTES + 2 * DIRECT_ALIGNMENT)

int direct_open(struct direct *direct, const char *path, int flags)
{
	int fd = open(path, flags | O_DIRECT);

	direct->on = fd >= 0;
	return fd < 0 && errno == EINVAL ? open(path, flags) : fd;
}

void direct_clear(struct direct *direct)
{
	free(direct->bounce);
	direct->bounce = NULL;
}

bool direct_is_aligned(
	const struct direct *direct, const void *data, uint64_t length, uint64_t offset)
{
	return direct->on && ((uintptr_t)data | offset | length) % DIRECT_ALIGNMENT == 0;
}

static uint64_t round_up(uint64_t value)
{
	return (value + DIRECT_ALIGNMENT - 1) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
}

/* Reads length bytes, all aligned, of which `needed` must be there. -EINVAL: refused. */
static int read_aligned(int fd, void *data, size_t length, size_t needed, uint64_t offset)
{
	size_t done = 0;

	while (done < needed) {
		ssize_t n = pread(fd, (char *)data + done, length - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) /* A medium error of a device is -ENODATA here. */
			return errno == ENODATA ? -EIO : -errno;
		done += (size_t)n;
		/* A read that ends within a block has met the end of the file. */
		if (done < needed && (n == 0 || done % DIRECT_ALIGNMENT))
			return -ENODATA;
	}
	return 0;
}

static int read_bounced(struct direct *direct, int fd, void *data, size_t length, uint64_t offset)
{
	size_t before = (size_t)(offset % DIRECT_ALIGNMENT);

	if (!direct->bounce)
		direct->bounce = aligned_alloc(DIRECT_ALIGNMENT, BOUNCE_BYTES);
	if (!direct->bounce)
		return -ENOMEM;
	int r = read_aligned(fd, direct->bounce, (size_t)round_up(before + length), before + length,
		offset - before);
	/* A bad sector beside it is none of it, if the device reads single ones. */
	if (r == -EIO && pread(fd, direct->bounce, length, (off_t)offset) == (ssize_t)length) {
		memcpy(data, direct->bounce, length);
		return 0;
	}
	if (r == 0)
		memcpy(data, (char *)direct->bounce + before, length);
	return r;
}

int direct_read(struct direct *direct, int fd, void *data, size_t length, uint64_t offset)
{
	int r;

	if (!direct->on)
		return io_pread_full(fd, data, length, offset);
	if (direct_is_aligned(direct, data, length, offset))
		r = read_aligned(fd, data, length, length, offset);
	else
		r = read_bounced(direct, fd, data, length, offset);
	if (r != -EINVAL)
		return r;
	/* Some file systems refuse only now, or want more than our alignment. */
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return -EINVAL;
	direct->on = false;
	return io_pread_full(fd, data, length, offset);
}
