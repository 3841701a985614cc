/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/aio.h"

#include "base/alloc.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 64

struct aio {
	aio_context_t context;
	int fd;
};

int aio_new(unsigned n, struct aio **ret_aio)
{
	struct aio *aio CLEANUP_AIO = xcalloc(1, sizeof(*aio));

	aio->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (aio->fd < 0 || syscall(SYS_io_setup, n, &aio->context) < 0)
		return -errno;
	*ret_aio = TAKE_PTR(aio);
	return 0;
}

struct aio *aio_free(struct aio *aio)
{
	if (!aio)
		return NULL;
	if (aio->context)
		(void)syscall(SYS_io_destroy, aio->context);
	if (aio->fd >= 0)
		close(aio->fd);
	free(aio);
	return NULL;
}

int aio_read(struct aio *aio, int fd, void *data, size_t length, uint64_t offset, void *tag)
{
	struct iocb iocb = {.aio_data = (uintptr_t)tag,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)fd,
		.aio_buf = (uintptr_t)data,
		.aio_nbytes = length,
		.aio_offset = (int64_t)offset,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)aio->fd};
	struct iocb *list[] = {&iocb};
	long n = syscall(SYS_io_submit, aio->context, 1, list);

	return n == 1 ? 0 : n < 0 ? -errno : -EAGAIN;
}

int aio_fd(const struct aio *aio)
{
	return aio->fd;
}

size_t aio_reap(struct aio *aio, struct aio_end *ends, size_t max)
{
	struct io_event events[MAX_EVENTS];
	struct timespec at_once = {0};
	eventfd_t ignored;

	/* First: what ends from here on makes it readable again. */
	(void)eventfd_read(aio->fd, &ignored);
	long n = syscall(
		SYS_io_getevents, aio->context, 0, MIN(max, (size_t)MAX_EVENTS), events, &at_once);
	for (long i = 0; i < n; i++) {
		ends[i].tag = (void *)(uintptr_t)events[i].data;
		ends[i].result = events[i].res;
	}
	return n < 0 ? 0 : (size_t)n;
}
