/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base64.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *data, size_t length, struct buf *out)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < length; i += 3) {
		size_t n = length - i < 3 ? length - i : 3;
		uint32_t bits = (uint32_t)bytes[i] << 16;
		if (n > 1)
			bits |= (uint32_t)bytes[i + 1] << 8;
		if (n > 2)
			bits |= bytes[i + 2];
		const char group[] = {letters[bits >> 18], letters[bits >> 12 & 63],
			n > 1 ? letters[bits >> 6 & 63] : '=', n > 2 ? letters[bits & 63] : '='};
		buf_append(out, group, sizeof(group));
	}
}

/* -1: none of them. */
static int value_of(char c)
{
	const char *at = c ? strchr(letters, c) : NULL;

	return at ? (int)(at - letters) : -1;
}

/* How many bytes the group stands for; 0: it is not in form. */
static size_t decode_group(const char *group, unsigned char *bytes)
{
	size_t n = group[3] != '=' ? 3 : group[2] != '=' ? 2 : 1;
	uint32_t bits = 0;

	for (size_t i = 0; i <= n; i++) {
		int value = value_of(group[i]);
		if (value < 0)
			return 0;
		bits |= (uint32_t)value << (18 - 6 * i);
	}
	bytes[0] = (unsigned char)(bits >> 16);
	bytes[1] = (unsigned char)(bits >> 8);
	bytes[2] = (unsigned char)bits;
	/* What the last letter says beyond the last byte is nothing. */
	return (n < 3 && bytes[n]) ? 0 : n;
}

int base64_decode(const char *text, struct buf *out)
{
	size_t length = strlen(text);
	struct buf bytes CLEANUP_BUF = BUF_INIT;

	if (length % 4 != 0)
		return -EBADMSG;
	for (size_t i = 0; i < length; i += 4) {
		unsigned char group[3];
		size_t n = decode_group(text + i, group);
		if (n == 0 || (n < 3 && i + 4 != length))
			return -EBADMSG;
		buf_append(&bytes, group, n);
	}
	buf_append(out, bytes.data, bytes.length);
	return 0;
}
