/* SPDX-License-Identifier: Apache-2.0 */
/* A growable run of bytes, always followed by a NUL that is not counted. */
#ifndef FERRY_BASE_BUF_H
#define FERRY_BASE_BUF_H

#include "base/cleanup.h"

#include <stddef.h>

struct buf {
	char *data; /* NULL while empty */
	size_t length;
	size_t capacity;
};

#define BUF_INIT                                                                                   \
	{                                                                                          \
		0                                                                                  \
	}

void buf_free(struct buf *buf);
void buf_append(struct buf *buf, const void *data, size_t length);
void buf_append_string(struct buf *buf, const char *s);
void buf_append_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Gives the bytes away as a NUL-terminated string (never NULL); buf is empty afterwards. */
char *buf_take_string(struct buf *buf);

#define CLEANUP_BUF CLEANUP(buf_free)

#endif
