/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/zero.h"

#include "base/cleanup.h"

#include <string.h>

bool zero_is_all(const void *data, size_t length)
{
	const unsigned char *bytes = data;

	/* The first bytes tell for nearly all data. Comparing the rest with itself, shifted, lets
	 * the C library's vector code do the work. */
	for (size_t i = 0; i < 16; i++) {
		if (i == length)
			return true;
		if (bytes[i])
			return false;
	}
	return memcmp(bytes, bytes + 16, length - 16) == 0;
}

size_t zero_run(const void *data, size_t length, bool *ret_zero)
{
	const unsigned char *bytes = data;
	size_t at = MIN(length, ZERO_BLOCK);
	bool zero = zero_is_all(bytes, at);

	while (at < length) {
		size_t block = MIN(length - at, ZERO_BLOCK);
		if (zero_is_all(bytes + at, block) != zero)
			break;
		at += block;
	}
	*ret_zero = zero;
	return at;
}
