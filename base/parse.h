/* SPDX-License-Identifier: Apache-2.0 */
/* Strict parsing of what people and peers write: the whole text must fit, or -EINVAL / -ERANGE and
 * nothing is written. */
#ifndef FERRY_BASE_PARSE_H
#define FERRY_BASE_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal, optional '-', no spaces, no leading '+'. */
int parse_int64(const char *s, int64_t *ret_value);
int parse_uint64(const char *s, uint64_t *ret_value);
/* parse_uint64 within [min, max]. */
int parse_range(const char *s, uint64_t min, uint64_t max, uint64_t *ret_value);
int parse_double(const char *s, double *ret_value);
/* "true", "false", "yes", "no", "on", "off", "1", "0". */
int parse_bool(const char *s, bool *ret_value);
/* Bytes: digits with an optional suffix K, M, G, T or KiB, MiB, GiB, TiB (all powers of 1024). */
int parse_size(const char *s, uint64_t *ret_bytes);
/* Microseconds: digits with a suffix us, ms, s, min, h or d; no suffix: seconds. */
int parse_duration(const char *s, uint64_t *ret_usec);
/* "host:port", "[v6]:port" with a port 0..65535; the caller frees ret_host. */
int parse_address(const char *s, char **ret_host, uint16_t *ret_port);

/* Whether the bytes are well-formed UTF-8 (RFC 3629) without NUL. */
bool utf8_is_valid(const char *s, size_t length);

#endif
