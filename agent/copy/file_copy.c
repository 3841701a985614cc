/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/file_copy.h"

#include "agent/copy/digest.h"
#include "agent/copy/endpoint.h"
#include "agent/copy/zero.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BATCH_PIECES 64
#define ALIGNMENT    4096

struct file_copy {
	struct endpoint *source;
	char *target;
	int fd;                /* of the target; -1: it is an export */
	struct endpoint *sink; /* NULL: it is a file */
	uint64_t size_bytes;
	struct rate_limit *rate;
	struct cancel *cancel;
	const struct cancel *stop;
	bool (*is_over)(void *arg);
	void (*copied)(void *arg, uint64_t bytes);
	void *arg;
	unsigned char *data; /* one piece */
	unsigned char *held; /* what is to be written next, piece behind piece; NULL: to be read */
	size_t n_taken;      /* bytes of it */
	bool is_fresh;       /* the target reads as zeros where nothing was written yet */
	bool is_final;
	/* Written, and not yet synced and compared. */
	struct extent pieces[BATCH_PIECES];
	unsigned char digests[BATCH_PIECES * DIGEST_BYTES];
	size_t n_pieces;
};

static int open_source(
	struct file_copy *copy, const struct file_copy_params *params, struct fault *fault)
{
	const struct endpoint_spec file = {
		.kind = ENDPOINT_FILE,
		.path = params->source,
		.direct = params->direct,
	};
	struct endpoint_spec spec = params->source_export ? *params->source_export : file;

	spec.writable = false;
	spec.size_bytes = params->size_bytes;
	return endpoint_open(&spec, params->cancel, &copy->source, fault);
}

static int open_target(
	struct file_copy *copy, const struct file_copy_params *params, struct fault *fault)
{
	struct endpoint_spec spec;

	if (!params->target_export) {
		copy->fd = open(params->target, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		int error = -errno;
		return copy->fd < 0 ? fault_errno(fault, error, "cannot write %s", params->target)
				    : 0;
	}
	spec = *params->target_export;
	spec.writable = true;
	spec.size_bytes = params->size_bytes;
	return endpoint_open(&spec, params->cancel, &copy->sink, fault);
}

int file_copy_open(
	const struct file_copy_params *params, struct file_copy **ret_copy, struct fault *fault)
{
	struct file_copy *copy CLEANUP_FILE_COPY = xcalloc(1, sizeof(*copy));

	copy->fd = -1;
	copy->target = xstrdup(params->target);
	copy->size_bytes = params->size_bytes;
	copy->rate = params->rate;
	copy->cancel = params->cancel;
	copy->stop = params->stop;
	copy->is_over = params->is_over;
	copy->copied = params->copied;
	copy->arg = params->arg;
	copy->data = aligned_alloc(ALIGNMENT, ENDPOINT_MAX_BYTES);
	if (!copy->data)
		return fault_errno(fault, -ENOMEM, "copying to %s", params->target);
	int r = open_target(copy, params, fault);
	if (r == 0)
		r = open_source(copy, params, fault);
	if (r < 0)
		return r;
	*ret_copy = TAKE_PTR(copy);
	return 0;
}

struct file_copy *file_copy_close(struct file_copy *copy)
{
	if (!copy)
		return NULL;
	endpoint_close(copy->source);
	endpoint_close(copy->sink);
	cleanup_close(&copy->fd);
	free(copy->held);
	free(copy->data);
	free(copy->target);
	free(copy);
	return NULL;
}

/* --- The target ---------------------------------------------------------------------------------
 */

static int report_write(const char *target, int error, struct fault *fault)
{
	char *text CLEANUP_FREE = xasprintf(
		"writing %s: %s; make room there, or choose another SR", target, strerror(-error));

	if (error != -ENOSPC && error != -EDQUOT)
		return fault_errno(fault, error, "writing %s", target);
	return fault_set(fault, error, "SR_BACKEND_FAILURE_44", "", text, "", NULL);
}

/* What the last round does, nobody cancels. */
static struct cancel *cancel_of(const struct file_copy *copy)
{
	return copy->is_final ? NULL : copy->cancel;
}

static int put(struct file_copy *copy, void *data, struct extent extent)
{
	return copy->sink ? endpoint_write(copy->sink, extent, data, cancel_of(copy), NULL)
			  : io_pwrite_full(copy->fd, data, extent.length, extent.offset);
}

/* Makes a hole. */
static int drop(struct file_copy *copy, struct extent extent)
{
	if (copy->sink)
		return endpoint_zero(copy->sink, extent, cancel_of(copy), NULL);
	return fallocate(copy->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)extent.offset,
		       (off_t)extent.length) < 0
		       ? -errno
		       : 0;
}

static int sync_target(struct file_copy *copy)
{
	if (copy->sink)
		return endpoint_flush(copy->sink, cancel_of(copy), NULL);
	return fdatasync(copy->fd) < 0 ? -errno : 0;
}

/* Of what was written since the last sync. */
static int digest_target(struct file_copy *copy, unsigned char *ret_digests, struct fault *fault)
{
	if (!copy->sink)
		return digest_file_extents(copy->target, copy->size_bytes, copy->pieces,
			copy->n_pieces, cancel_of(copy), ret_digests, fault);
	for (size_t i = 0; i < copy->n_pieces; i++) {
		struct extent piece = copy->pieces[i];
		int r = endpoint_read(copy->sink, piece, copy->data, cancel_of(copy), fault);
		if (r < 0)
			return r;
		digest_chunk(copy->data, piece.length, ret_digests + i * DIGEST_BYTES);
	}
	return 0;
}

/* --- Proof --------------------------------------------------------------------------------------
 */

/* Syncs what was written, reads it again and compares. */
static int finish_batch(struct file_copy *copy, struct fault *fault)
{
	unsigned char there[BATCH_PIECES * DIGEST_BYTES];
	uint64_t bytes = 0;
	int r = sync_target(copy);

	if (r < 0)
		return report_write(copy->target, r, fault);
	r = digest_target(copy, there, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < copy->n_pieces; i++) {
		if (memcmp(there + i * DIGEST_BYTES, copy->digests + i * DIGEST_BYTES,
			    DIGEST_BYTES) != 0)
			return fault_text(fault, -EIO,
				"%s does not hold what was written to it at byte %" PRIu64
				": the storage below it loses data",
				copy->target, copy->pieces[i].offset);
		bytes += copy->pieces[i].length;
	}
	copy->n_pieces = 0;
	if (copy->copied)
		copy->copied(copy->arg, bytes);
	return 0;
}

/* --- Pieces -------------------------------------------------------------------------------------
 */

/* Only what holds something, block by block: the file stays as sparse as it can be. */
static int write_fresh(struct file_copy *copy, struct extent piece)
{
	unsigned char *data = copy->data;
	uint64_t done = 0;

	while (done < piece.length) {
		bool is_zero;
		size_t run = zero_run(data + done, piece.length - done, &is_zero);
		struct extent extent = {piece.offset + done, run};
		int r = is_zero ? 0 : put(copy, data + done, extent);
		if (r < 0)
			return r;
		done += run;
	}
	return 0;
}

static int write_over(struct file_copy *copy, struct extent piece)
{
	if (zero_is_all(copy->data, piece.length) && drop(copy, piece) == 0)
		return 0;
	return put(copy, copy->data, piece);
}

static int read_piece(
	struct file_copy *copy, struct extent piece, struct cancel *cancel, struct fault *fault)
{
	if (!copy->held)
		return endpoint_read(copy->source, piece, copy->data, cancel, fault);
	memcpy(copy->data, copy->held + copy->n_taken, piece.length);
	copy->n_taken += piece.length;
	return 0;
}

static int copy_piece(struct file_copy *copy, struct extent piece, struct fault *fault)
{
	struct cancel *cancel = cancel_of(copy);
	int r = copy->is_final ? 0 : rate_limit_take(copy->rate, piece.length, cancel);

	if (r < 0)
		return fault_errno(fault, r, "copying to %s", copy->target);
	r = read_piece(copy, piece, cancel, fault);
	if (r < 0)
		return r;
	digest_chunk(copy->data, piece.length, copy->digests + copy->n_pieces * DIGEST_BYTES);
	r = copy->is_fresh ? write_fresh(copy, piece) : write_over(copy, piece);
	if (r < 0)
		return report_write(copy->target, r, fault);
	copy->pieces[copy->n_pieces++] = piece;
	return copy->n_pieces == BATCH_PIECES ? finish_batch(copy, fault) : 0;
}

static bool is_wanted(const struct file_copy *copy)
{
	return copy->is_final ||
	       (!cancel_is_requested(copy->cancel) && !cancel_is_requested(copy->stop) &&
		       !(copy->is_over && copy->is_over(copy->arg)));
}

static int copy_extent(struct file_copy *copy, struct extent extent, struct fault *fault)
{
	int r = 0;

	while (r == 0 && extent.length > 0) {
		uint64_t length = MIN(extent.length, (uint64_t)ENDPOINT_MAX_BYTES);
		if (!is_wanted(copy))
			return fault_errno(fault, -ECANCELED, "copying to %s", copy->target);
		r = copy_piece(copy, (struct extent){extent.offset, length}, fault);
		extent.offset += length;
		extent.length -= length;
	}
	return r;
}

int file_copy_bulk(struct file_copy *copy, struct fault *fault)
{
	struct extent run = {0};

	copy->is_fresh = true;
	for (;;) {
		int r = endpoint_next_data(copy->source, run.offset + run.length, &run, fault);
		if (r == 0 && run.length > 0)
			r = copy_extent(copy, run, fault);
		if (r < 0)
			return r;
		if (run.length == 0)
			break;
	}
	return finish_batch(copy, fault);
}

static void drop_held(struct file_copy *copy)
{
	free(copy->held);
	copy->held = NULL;
	copy->n_taken = 0;
}

int file_copy_extents(struct file_copy *copy, const struct extent *extents, size_t n, bool is_final,
	struct fault *fault)
{
	int r = 0;

	copy->is_fresh = false;
	copy->is_final = is_final;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = copy_extent(copy, extents[i], fault);
	drop_held(copy);
	return r < 0 ? r : finish_batch(copy, fault);
}

static int hold_extent(struct file_copy *copy, struct extent extent, size_t *n_held,
	uint64_t deadline_usec, struct fault *fault)
{
	while (extent.length > 0) {
		uint64_t length = MIN(extent.length, (uint64_t)ENDPOINT_MAX_BYTES);
		if (clock_now_usec() >= deadline_usec)
			return fault_errno(
				fault, -ETIMEDOUT, "reading what is to go to %s", copy->target);
		int r = endpoint_read(copy->source, (struct extent){extent.offset, length},
			copy->held + *n_held, NULL, fault);
		if (r < 0)
			return r;
		*n_held += length;
		extent.offset += length;
		extent.length -= length;
	}
	return 0;
}

int file_copy_hold(struct file_copy *copy, const struct extent *extents, size_t n,
	uint64_t deadline_usec, struct fault *fault)
{
	size_t bytes = 0, n_held = 0;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		bytes += extents[i].length;
	drop_held(copy);
	copy->held = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
	if (!copy->held)
		return fault_errno(fault, -ENOMEM, "copying to %s", copy->target);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = hold_extent(copy, extents[i], &n_held, deadline_usec, fault);
	if (r < 0)
		drop_held(copy);
	return r;
}

/* --- Reflink ------------------------------------------------------------------------------------
 */

/* What says that this file system, or two of them, cannot, and not that something is wrong. */
static bool is_unable(int error)
{
	return error == -EOPNOTSUPP || error == -EXDEV || error == -EINVAL || error == -ENOTTY ||
	       error == -ENOSYS;
}

static int clone_range(int from, int to)
{
	int r = INJECT("copy.reflink");

	if (r == 0 && ioctl(to, FICLONE, from) < 0)
		r = -errno;
	return r;
}

int file_copy_reflink(const char *source, const char *target, struct fault *fault)
{
	int from CLEANUP_CLOSE = open(source, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int to CLEANUP_CLOSE = open(target, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (from < 0 || to < 0)
		return fault_errno(fault, -errno, "opening %s to copy it to %s", source, target);
	int r = clone_range(from, to);
	if (is_unable(r))
		return 0;
	if (r == 0 && fsync(to) < 0)
		r = -errno;
	return r < 0 ? report_write(target, r, fault) : 1;
}
