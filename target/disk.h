/* SPDX-License-Identifier: Apache-2.0 */
/* Image files of a storage repository of type "file": raw, sparse, one per VDI. */
#ifndef FERRY_TARGET_DISK_H
#define FERRY_TARGET_DISK_H

#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

#define DISK_SECTOR 512

struct disk_info {
	uint64_t size_bytes;
	uint64_t allocated_bytes; /* st_blocks * 512 */
	bool regular;
	bool whole_sectors; /* size is a multiple of DISK_SECTOR and not 0 */
};

/* A new sparse file of exactly size_bytes (a multiple of 512, > 0), mode 0600, durable with its
 * directory. -EEXIST when something has that name; -ENOSPC, -EDQUOT, -EFBIG as the file system
 * says. */
int disk_create(const char *path, uint64_t size_bytes, struct fault *fault);
/* Unlinks it durably; 0 when there is none. */
int disk_remove(const char *path, struct fault *fault);
/* Grows it; shrinking is -EINVAL. */
int disk_grow(const char *path, uint64_t size_bytes, struct fault *fault);
/* -ENOENT when missing. Symbolic links are not followed (-ELOOP). */
int disk_inspect(const char *path, struct disk_info *ret_info, struct fault *fault);
/* Size and free bytes of the file system that holds dir. */
int disk_space(
	const char *dir, uint64_t *ret_size_bytes, uint64_t *ret_free_bytes, struct fault *fault);

#endif
