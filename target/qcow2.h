/* SPDX-License-Identifier: Apache-2.0 */
/* Headers and tables of qcow2 images (QEMU: docs/interop/qcow2.txt), read as the work of a
 * stranger: what leads to another file, or needs a key, or a part that this image does not have, is
 * refused before any program that would follow it is given the image. */
#ifndef FERRY_TARGET_QCOW2_H
#define FERRY_TARGET_QCOW2_H

#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A header with its extensions is not longer. */
#define QCOW2_HEADER_MAX 65536

struct qcow2_header {
	unsigned version; /* 2 or 3 */
	unsigned cluster_bits;
	uint64_t virtual_bytes; /* a multiple of 512, above 0 */
	uint64_t l1_offset;
	uint32_t l1_entries;
	bool extended_l2;
};

/* The first bytes of an image (all, or QCOW2_HEADER_MAX) whose file has file_bytes. Pure. -EINVAL
 * with a text that goes on from the image's name ("it has a backing file ..."). */
int qcow2_parse(const void *data, size_t length, uint64_t file_bytes,
	struct qcow2_header *ret_header, struct fault *fault);

/* The same of a file; symbolic links are not followed. Errno of open(2), or -EINVAL. */
int qcow2_inspect(const char *path, struct qcow2_header *ret_header, struct fault *fault);

/* How many bytes of the disk are data: what a raw copy of it takes. Reads all tables, which are
 * about 1/8192 of the data with clusters of 64 KiB. -EINVAL: they lead nowhere. */
int qcow2_data_bytes(const char *path, uint64_t *ret_bytes, struct fault *fault);

#endif
