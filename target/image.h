/* SPDX-License-Identifier: Apache-2.0 */
/* Image files of any format that an SR may hold. What qemu-img does, it does confined to that one
 * file. */
#ifndef FERRY_TARGET_IMAGE_H
#define FERRY_TARGET_IMAGE_H

#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

enum image_format { IMAGE_RAW, IMAGE_QCOW2, N_IMAGE_FORMATS };

/* By the end of its name (".qcow2") and nothing else: what a guest writes to a raw disk must never
 * make it anything but raw. */
enum image_format image_format_of(const char *name);
/* "raw", "qcow2"; static. */
const char *image_format_name(enum image_format format);
/* ".raw", ".qcow2": of the files that are made here. */
const char *image_format_suffix(enum image_format format);
/* -EINVAL when no format has that name. */
int image_format_parse(const char *name, enum image_format *ret_format);

struct image_info {
	enum image_format format;
	uint64_t virtual_bytes; /* of the disk in it: whole sectors, above 0 */
	uint64_t file_bytes;
	uint64_t allocated_bytes; /* of the file, st_blocks * 512 */
};

/* -ENOENT; -ELOOP, -EINVAL: it is no image that can be used; the text goes on from its name ("it is
 * empty"). Blocks. */
int image_inspect(const char *path, struct image_info *ret_info, struct fault *fault);
/* Bytes that a raw copy of it takes at most. */
int image_data_bytes(const char *path, uint64_t *ret_bytes, struct fault *fault);

/* As disk_create and disk_grow. program: qemu-img, for formats other than raw; -EOPNOTSUPP when it
 * is NULL. What it writes is logged (image.tool). Block up to a minute. */
int image_create(const char *program, const char *path, enum image_format format,
	uint64_t size_bytes, struct fault *fault);
int image_grow(const char *program, const char *path, uint64_t size_bytes, struct fault *fault);

#endif
