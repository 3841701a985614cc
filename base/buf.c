/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void buf_reserve(struct buf *buf, size_t extra)
{
	size_t need = buf->length + extra + 1;

	if (need <= buf->capacity)
		return;
	buf->capacity = MAX(need, buf->capacity * 2);
	buf->capacity = MAX(buf->capacity, (size_t)64);
	buf->data = xrealloc(buf->data, buf->capacity, 1);
}

void buf_free(struct buf *buf)
{
	free(buf->data);
	*buf = (struct buf)BUF_INIT;
}

void buf_append(struct buf *buf, const void *data, size_t length)
{
	buf_reserve(buf, length);
	if (length)
		memcpy(buf->data + buf->length, data, length);
	buf->length += length;
	buf->data[buf->length] = '\0';
}

void buf_append_string(struct buf *buf, const char *s)
{
	buf_append(buf, s, strlen(s));
}

void buf_append_char(struct buf *buf, char c)
{
	buf_append(buf, &c, 1);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;

	/* Most are short, and there is room for them. */
	buf_reserve(buf, 32);
	size_t room = buf->capacity - buf->length;
	va_start(args, format);
	int length = vsnprintf(buf->data + buf->length, room, format, args);
	va_end(args);
	if (length >= 0 && (size_t)length < room) {
		buf->length += (size_t)length;
		return;
	}
	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	buf_append_string(buf, text);
}

char *buf_take_string(struct buf *buf)
{
	buf_reserve(buf, 0);
	buf->data[buf->length] = '\0';
	char *data = buf->data;
	*buf = (struct buf)BUF_INIT;
	return data;
}
