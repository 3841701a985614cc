/* SPDX-License-Identifier: Apache-2.0 */
/* Linux's asynchronous reads (io_submit(2)): many at once on one O_DIRECT descriptor, without a
 * thread for each. On other descriptors they are done while they are submitted. Belongs to one
 * thread. */
#ifndef FERRY_AGENT_COPY_AIO_H
#define FERRY_AGENT_COPY_AIO_H

#include "base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

struct aio;

/* For n reads in flight. A negative errno where the kernel gives none (-EAGAIN: fs.aio-max-nr is
 * used up; -ENOSYS, -EPERM: forbidden). */
int aio_new(unsigned n, struct aio **ret_aio);
/* Waits until nothing is in flight any more; the ends are lost. NULL is fine. */
struct aio *aio_free(struct aio *aio);

/* 0: it is under way, and tag comes back from aio_reap. A negative errno: it is not. */
int aio_read(struct aio *aio, int fd, void *data, size_t length, uint64_t offset, void *tag);
/* Readable when a read has ended. */
int aio_fd(const struct aio *aio);

struct aio_end {
	void *tag;
	int64_t result; /* bytes, or a negative errno */
};

/* What has ended; does not block. */
size_t aio_reap(struct aio *aio, struct aio_end *ends, size_t max);

DEFINE_CLEANUP(struct aio *, aio_free)
#define CLEANUP_AIO CLEANUP(cleanup_aio_free)

#endif
