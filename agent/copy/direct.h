/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a file with O_DIRECT at any sector: what is not aligned goes through a buffer. A file
 * system that refuses O_DIRECT, when opening or when reading, is read through the page cache. */
#ifndef FERRY_AGENT_COPY_DIRECT_H
#define FERRY_AGENT_COPY_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset, length and memory of a direct read are multiples of it. */
#define DIRECT_ALIGNMENT 4096

/* Begins as zeros: the page cache is used. */
struct direct {
	bool on;
	void *bounce; /* made when first needed */
};

/* open(2) with O_DIRECT if it can be had: then direct->on. */
int direct_open(struct direct *direct, const char *path, int flags);
/* Like io_pread_full; length at most ENDPOINT_MAX_BYTES. The last bytes of a file need not fill an
 * aligned block. */
int direct_read(struct direct *direct, int fd, void *data, size_t length, uint64_t offset);
/* Whether O_DIRECT is in use and such a read needs no bounce. */
bool direct_is_aligned(
	const struct direct *direct, const void *data, uint64_t length, uint64_t offset);
void direct_clear(struct direct *direct);

#endif
