/* SPDX-License-Identifier: Apache-2.0 */
/* Random identifiers and secrets, from getrandom(2). */
#ifndef FERRY_BASE_UUID_H
#define FERRY_BASE_UUID_H

#include <stdbool.h>
#include <stddef.h>

#define UUID_LENGTH 36
#define REF_PREFIX  "OpaqueRef:"
#define REF_NULL    "OpaqueRef:NULL"

/* Fills data with random bytes; never fails. */
void random_bytes(void *data, size_t length);

/* A random (version 4) UUID in lower case; the caller frees it. */
char *uuid_new(void);

/* "OpaqueRef:" and a fresh UUID: refs are never reused. The caller frees it. */
char *ref_new(void);

/* 36 characters, hexadecimal digits in lower case, hyphens in place (RFC 4122 section 3). */
bool uuid_is_valid(const char *s);

/* NULL, "" and OpaqueRef:NULL are all the null reference. */
bool ref_is_null(const char *ref);

/* n_chars random letters and digits, 5.9 bits each; the caller frees it. */
char *secret_new(size_t n_chars);

#endif
