/* SPDX-License-Identifier: Apache-2.0 */
/* Passwords of API users, as yescrypt hashes in the form of crypt(5). Hashing and comparing take
 * tens of milliseconds by design. */
#ifndef FERRY_AGENT_API_PASSWORDS_H
#define FERRY_AGENT_API_PASSWORDS_H

#include "base/fault.h"

#include <stdbool.h>

#define PASSWORD_MAX_BYTES  511
#define USER_NAME_MAX_BYTES 64
/* In a hash's place: the host's PAM checks the password. No hash begins so. */
#define PASSWORD_IN_PAM "*pam"

/* 1 to 64 bytes of UTF-8 without control characters; 1 to 511 bytes of UTF-8: else -EINVAL. */
int user_name_check(const char *name, struct fault *fault);
int password_check(const char *password, struct fault *fault);

/* The caller frees *ret_hash. */
int password_hash(const char *password, char **ret_hash, struct fault *fault);
bool password_is(const char *password, const char *hash);
/* hash: NULL is fine. */
bool password_is_in_pam(const char *hash);

#endif
