/* SPDX-License-Identifier: Apache-2.0 */
/* The content of a disk that no guest has, as a guest would see it, read or written from outside of
 * it, whatever the format of its image. While one is open the VDI is marked, so that nobody else
 * uses it; the mark is in the journal before it is made.
 *
 * Belongs to one thread. */
#ifndef FERRY_AGENT_MIGRATE_RAW_DISK_H
#define FERRY_AGENT_MIGRATE_RAW_DISK_H

#include "agent/migrate/supervisor.h"

/* What is read at once at most. */
#define RAW_DISK_BYTES ((size_t)256 << 10)

struct raw_disk;

struct raw_disk_request {
	const char *vdi;
	const char *task; /* ref: key of the mark */
	bool writable;
	struct cancel *cancel; /* -ECANCELED from all calls below; outlives the disk */
};

/* Blocks, up to 20 s. HANDLE_INVALID, VDI_IN_USE [vdi, op], OTHER_OPERATION_IN_PROGRESS ["VDI",
 * vdi, op, task], VDI_READONLY [vdi], SR_NOT_ATTACHED [sr], VDI_MISSING [sr, vdi],
 * SR_BACKEND_FAILURE_46. */
int raw_disk_open(struct supervisor *supervisor, const struct raw_disk_request *request,
	struct raw_disk **ret_disk, struct fault *fault);
/* The image is let go of, and then the mark: once that is done, or cannot be, as the database is
 * away. Nothing can be read or written any more; what was read last stays. */
int raw_disk_release(struct raw_disk *disk, struct fault *fault);
/* The same, until it is done or `cancel` says to stop. What was written and not finished may or may
 * not be there. NULL is fine; returns NULL. */
struct raw_disk *raw_disk_close(struct raw_disk *disk);

uint64_t raw_disk_size(const struct raw_disk *disk);
/* length: at most RAW_DISK_BYTES, within the disk, at any offset. *ret_data is the disk's until the
 * next call. Holes are not read. Blocks. */
int raw_disk_read(struct raw_disk *disk, uint64_t offset, size_t length, const char **ret_data,
	struct fault *fault);
/* From the beginning on, one after the other: where the next bytes go, and how many may be put
 * there; then that they were. What is zero becomes a hole. VDI_TOO_SMALL [vdi, size] at the end of
 * the disk, -ENOSPC with SR_BACKEND_FAILURE_44. Blocks. */
char *raw_disk_space(struct raw_disk *disk, size_t *ret_length);
int raw_disk_wrote(struct raw_disk *disk, size_t length, struct fault *fault);
/* The rest of what was written, then a flush: durable when this returns 0. What lies behind it on
 * the disk stays. Blocks. */
int raw_disk_finish(struct raw_disk *disk, struct fault *fault);

/* Of resources; detail: key (the task), vdi. */
#define RAW_DISK_KIND "raw-disk"
/* Takes away the mark of one that an earlier daemon had open, or whose task is known to have ended.
 */
int raw_disk_settle_row(
	const struct storage *storage, const struct resource_row *row, struct fault *fault);

DEFINE_CLEANUP(struct raw_disk *, raw_disk_close)
#define CLEANUP_RAW_DISK CLEANUP(cleanup_raw_disk_close)

#endif
