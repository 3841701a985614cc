/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reads digits; returns what follows them, or NULL when there is none or they overflow. */
static const char *scan_digits(const char *s, uint64_t *ret_value, int *ret_error)
{
	uint64_t value = 0;
	const char *at = s;

	for (; *at >= '0' && *at <= '9'; at++) {
		if (__builtin_mul_overflow(value, 10u, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*at - '0'), &value)) {
			*ret_error = -ERANGE;
			return NULL;
		}
	}
	if (at == s) {
		*ret_error = -EINVAL;
		return NULL;
	}
	*ret_value = value;
	return at;
}

int parse_uint64(const char *s, uint64_t *ret_value)
{
	uint64_t value;
	int error = -EINVAL;
	const char *end = scan_digits(s, &value, &error);

	if (!end)
		return error;
	if (*end)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int parse_int64(const char *s, int64_t *ret_value)
{
	bool negative = *s == '-';
	uint64_t magnitude = 0;
	int r = parse_uint64(s + negative, &magnitude);

	if (r < 0)
		return r;
	if (magnitude > (uint64_t)INT64_MAX + negative)
		return -ERANGE;
	*ret_value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
	return 0;
}

int parse_range(const char *s, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;
	int r = parse_uint64(s, &value);

	if (r < 0)
		return r;
	if (value < min || value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int parse_double(const char *s, double *ret_value)
{
	char *end;

	if (!*s || strspn(s, "+-0123456789.eE") != strlen(s))
		return -EINVAL;
	double value = strtod(s, &end);
	if (*end)
		return -EINVAL;
	/* Too small is rounded to what is near zero; only too large has no value. */
	if (!isfinite(value))
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int parse_bool(const char *s, bool *ret_value)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(s, words[i]) == 0) {
			*ret_value = i % 2;
			return 0;
		}
	}
	return -EINVAL;
}

struct unit {
	const char *suffix;
	uint64_t factor;
};

static int parse_with_unit(
	const char *s, const struct unit *units, size_t n_units, uint64_t *ret_value)
{
	uint64_t value;
	int error = -EINVAL;
	const char *end = scan_digits(s, &value, &error);

	if (!end)
		return error;
	for (size_t i = 0; i < n_units; i++) {
		if (strcmp(end, units[i].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(value, units[i].factor, &value))
			return -ERANGE;
		*ret_value = value;
		return 0;
	}
	return -EINVAL;
}

int parse_size(const char *s, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{"", 1},
		{"K", UINT64_C(1) << 10},
		{"M", UINT64_C(1) << 20},
		{"G", UINT64_C(1) << 30},
		{"T", UINT64_C(1) << 40},
		{"KiB", UINT64_C(1) << 10},
		{"MiB", UINT64_C(1) << 20},
		{"GiB", UINT64_C(1) << 30},
		{"TiB", UINT64_C(1) << 40},
	};

	return parse_with_unit(s, units, ARRAY_SIZE(units), ret_bytes);
}

int parse_duration(const char *s, uint64_t *ret_usec)
{
	static const struct unit units[] = {
		{"", 1000000},
		{"us", 1},
		{"ms", 1000},
		{"s", 1000000},
		{"min", 60 * UINT64_C(1000000)},
		{"h", 3600 * UINT64_C(1000000)},
		{"d", 86400 * UINT64_C(1000000)},
	};

	return parse_with_unit(s, units, ARRAY_SIZE(units), ret_usec);
}

int parse_address(const char *s, char **ret_host, uint16_t *ret_port)
{
	const char *host = s;
	const char *host_end;
	const char *colon;

	if (*s == '[') {
		host = s + 1;
		host_end = strchr(host, ']');
		if (!host_end)
			return -EINVAL;
		colon = host_end + 1;
	} else {
		host_end = colon = strrchr(s, ':');
		if (!colon || memchr(s, ':', (size_t)(colon - s)))
			return -EINVAL;
	}
	if (host_end == host || *colon != ':')
		return -EINVAL;
	uint64_t port;
	int r = parse_range(colon + 1, 0, UINT16_MAX, &port);
	if (r < 0)
		return r;
	*ret_host = xstrndup(host, (size_t)(host_end - host));
	*ret_port = (uint16_t)port;
	return 0;
}

bool utf8_is_valid(const char *s, size_t length)
{
	const unsigned char *p = (const unsigned char *)s;
	const unsigned char *end = p + length;

	while (p < end) {
		unsigned char c = *p++;
		int n;
		uint32_t code;
		if (c == 0)
			return false;
		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c <= 0xdf) {
			n = 1;
			code = c & 0x1fu;
		} else if ((c & 0xf0) == 0xe0) {
			n = 2;
			code = c & 0x0fu;
		} else if (c >= 0xf0 && c <= 0xf4) {
			n = 3;
			code = c & 0x07u;
		} else {
			return false;
		}
		if (end - p < n)
			return false;
		for (int i = 0; i < n; i++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			code = code << 6 | (*p++ & 0x3fu);
		}
		if ((n == 2 && code < 0x800) || (n == 3 && code < 0x10000) || code > 0x10ffff ||
			(code >= 0xd800 && code <= 0xdfff))
			return false;
	}
	return true;
}
