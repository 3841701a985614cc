/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

void random_bytes(void *data, size_t length)
{
	char *at = data;

	while (length) {
		ssize_t n = getrandom(at, length, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			abort(); /* Not possible with a valid buffer on Linux 3.17 and later. */
		at += n;
		length -= (size_t)n;
	}
}

char *uuid_new(void)
{
	uint8_t b[16];

	random_bytes(b, sizeof(b));
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	return xasprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
		b[13], b[14], b[15]);
}

char *ref_new(void)
{
	char *uuid CLEANUP_FREE = uuid_new();

	return xasprintf(REF_PREFIX "%s", uuid);
}

bool uuid_is_valid(const char *s)
{
	if (!s || strlen(s) != UUID_LENGTH)
		return false;
	for (size_t i = 0; i < UUID_LENGTH; i++) {
		bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
		if (hyphen ? s[i] != '-' : !strchr("0123456789abcdef", s[i]))
			return false;
	}
	return true;
}

bool ref_is_null(const char *ref)
{
	return !ref || !*ref || strcmp(ref, REF_NULL) == 0;
}

char *secret_new(size_t n_chars)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	char *secret = xcalloc(n_chars + 1, 1);

	for (size_t i = 0; i < n_chars;) {
		uint8_t byte;
		random_bytes(&byte, 1);
		if (byte < 62 * 4) /* reject the rest: no letter more likely than another */
			secret[i++] = alphabet[byte % 62];
	}
	return secret;
}
