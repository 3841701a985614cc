/* SPDX-License-Identifier: Apache-2.0 */
/* File I/O that finishes what it starts: short transfers and EINTR are handled here. All may block.
 */
#ifndef FERRY_BASE_IO_H
#define FERRY_BASE_IO_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* 0 when all bytes were moved; -ENODATA when the file ends before; else a negative errno. */
int io_pread_full(int fd, void *data, size_t length, uint64_t offset);
int io_pwrite_full(int fd, const void *data, size_t length, uint64_t offset);
int io_write_full(int fd, const void *data, size_t length);

/* Reads a whole file of at most max_bytes (-EFBIG beyond) and appends it; on failure buf is as it
 * was. */
int io_read_file(const char *path, size_t max_bytes, struct buf *buf);

/* Replaces the file: temporary file beside it, fsync, rename, fsync of the directory. After a crash
 * either the old or the new content is there. */
int io_replace_file(const char *path, const void *data, size_t length, mode_t mode);

/* fsync of the directory that holds path: makes a create, rename or unlink durable. */
int io_sync_parent(const char *path);

/* Like mkdir -p for the last component only: 0 when the directory exists afterwards. */
int io_ensure_dir(const char *path, mode_t mode);

#endif
