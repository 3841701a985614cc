/* SPDX-License-Identifier: Apache-2.0 */
/* Copies a disk into another file of the same host, and proves what it copied: each piece is hashed
 * as it is read, and after a sync the new file is read again and compared. Images that are not raw
 * are read, and written, through a program that knows their format. */
#ifndef FERRY_AGENT_COPY_FILE_COPY_H
#define FERRY_AGENT_COPY_FILE_COPY_H

#include "agent/copy/endpoint.h"
#include "agent/copy/rate.h"
#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "schema/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_copy_params {
	const char *source;
	bool direct;        /* the source is read past the page cache, as its guest writes it */
	const char *target; /* exists, as long as the source, reads as zeros */
	/* NBD exports of the two disks, by which they are reached then; NULL: as the files that
	 * they are. */
	const struct endpoint_spec *source_export;
	const struct endpoint_spec *target_export;
	uint64_t size_bytes;     /* whole sectors */
	struct rate_limit *rate; /* may be NULL */
	struct cancel *cancel;
	const struct cancel *stop; /* a second one, looked at between pieces */
	/* Asked between pieces: the copy is of no use any more; may be NULL. */
	bool (*is_over)(void *arg);
	/* Bytes that were copied and compared since the last call; may be NULL. */
	void (*copied)(void *arg, uint64_t bytes);
	void *arg;
};

struct file_copy;

/* Opens both. The strings are copied, rate and cancel borrowed. Belongs to one thread. */
int file_copy_open(
	const struct file_copy_params *params, struct file_copy **ret_copy, struct fault *fault);
struct file_copy *file_copy_close(struct file_copy *copy);

/* All that is no hole, once, before any extents. Blocks; sees cancel. -ENOSPC or -EDQUOT with
 * SR_BACKEND_FAILURE_44; -EIO: not readable, not writable, or the files differ; -ECANCELED. */
int file_copy_bulk(struct file_copy *copy, struct fault *fault);
/* Those extents, over older content: what is zeros there becomes holes. When it returns 0, they are
 * on the disk and were compared. With is_final, neither cancel nor rate is looked at. */
int file_copy_extents(struct file_copy *copy, const struct extent *extents, size_t n, bool is_final,
	struct fault *fault);
/* Reads those extents into memory, for a source that must not be held for as long as the target
 * may take: file_copy_extents of the same ones writes what was read. -ETIMEDOUT at the deadline:
 * nothing is held. Neither cancel nor rate is looked at. */
int file_copy_hold(struct file_copy *copy, const struct extent *extents, size_t n,
	uint64_t deadline_usec, struct fault *fault);

/* Makes the target, which exists and is as long, share the source's blocks: 1 when it does, and is
 * on the disk; 0 when the file system cannot, and the target is untouched. SR_BACKEND_FAILURE_44 as
 * above. */
int file_copy_reflink(const char *source, const char *target, struct fault *fault);

DEFINE_CLEANUP(struct file_copy *, file_copy_close)
#define CLEANUP_FILE_COPY CLEANUP(cleanup_file_copy_close)

#endif
