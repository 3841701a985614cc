/* SPDX-License-Identifier: Apache-2.0 */
/* Random value trees for property tests, made from a seed that the test prints. */
#ifndef FERRY_TESTS_LIB_RANDOM_VALUE_H
#define FERRY_TESTS_LIB_RANDOM_VALUE_H

#include "base/value.h"

#include <stdint.h>

/* xorshift64*; the state must not be 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline size_t random_below(uint64_t *state, size_t n)
{
	return (size_t)(random_next(state) % n);
}

/* Text with everything that wires tend to break: markup, white space, entities, long UTF-8. */
static inline struct value *random_string(uint64_t *state)
{
	static const char *const pieces[] = {"", " ", "\t", "\n", "\r", "\r\n", "<", ">", "&", "\"",
		"'", "&amp;", "]]>", "<![CDATA[", "\\", "/", "a", "OpaqueRef:NULL", "\xc3\xa9",
		"\xe2\x82\xac", "\xf0\x9f\x9a\xa2", "\xef\xbf\xbd", "\x7f", "0", "-1", "true",
		"%s"};
	char text[200] = "";
	size_t length = 0;

	for (size_t n = random_below(state, 12); n; n--) {
		const char *piece = pieces[random_below(state, ARRAY_SIZE(pieces))];
		for (; *piece; piece++)
			text[length++] = *piece;
	}
	return value_new_string_n(text, length);
}

static inline struct value *random_scalar(uint64_t *state)
{
	switch (random_below(state, 6)) {
	case 0:
		return value_new_bool(random_next(state) & 1);
	case 1:
		return value_new_i4((int64_t)random_next(state) >> random_below(state, 64));
	case 2:
		/* %.16g holds every multiple of 1/1024 of this size. */
		return value_new_double((double)((int64_t)random_next(state) >> 40) / 1024);
	case 3:
		return value_new_datetime((int64_t)random_below(state, UINT32_MAX));
	case 4:
		return value_new_int((int64_t)random_next(state) >> random_below(state, 64));
	default:
		return random_string(state);
	}
}

static inline struct value *random_tree(uint64_t *state, unsigned depth)
{
	size_t kind = depth ? random_below(state, 4) : 3;

	if (kind > 1)
		return random_scalar(state);
	struct value *tree = kind ? value_new_array() : value_new_struct();
	for (size_t n = random_below(state, 24); n; n--) {
		struct value *child = random_tree(state, depth - 1);
		if (kind) {
			value_append(tree, child);
			continue;
		}
		struct value *name = random_string(state);
		value_set(tree, name->string, child);
		value_free(name);
	}
	return tree;
}

#endif
