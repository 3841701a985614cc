/* SPDX-License-Identifier: Apache-2.0 */
/* A failure that a user will read: a XenAPI error code with its parameters.
 *
 * Convention of the whole project: a function returns 0 for done, a negative errno for failure, and
 * a positive code only where its header lists it. A function that takes a `struct fault *` fills it
 * whenever it returns a negative value (the pointer may be NULL when the caller does not care).
 * Whoever knows the cause writes the text once, at the place where it is known: stage, object,
 * side, cause, and what may be done about it. */
#ifndef FERRY_BASE_FAULT_H
#define FERRY_BASE_FAULT_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>

struct fault {
	char *code; /* "HANDLE_INVALID"; NULL: no fault */
	char **params;
	size_t n_params;
};

#define FAULT_INIT                                                                                 \
	{                                                                                          \
		0                                                                                  \
	}

/* Sets code and parameters (a NULL-terminated list of strings), dropping what was there.
 * Returns `error`, which must be negative, so that callers can `return fault_set(...)`. */
int fault_set(struct fault *fault, int error, const char *code, ...) __attribute__((sentinel));

/* INTERNAL_ERROR with one parameter: the formatted text, then ": " and the errno's text. */
int fault_errno(struct fault *fault, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* INTERNAL_ERROR with one parameter: the formatted text alone. */
int fault_text(struct fault *fault, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* The analyzer reads one file at a time; here it is told what every file relies on: that these
 * return what they were given, and that this is negative. */
static inline int fault_negative_(int error)
{
	return error < 0 ? error : -1;
}
#define fault_set(fault, error, ...)                                                               \
	((void)(fault_set)(fault, error, __VA_ARGS__), fault_negative_(error))
#define fault_errno(fault, error, ...)                                                             \
	((void)(fault_errno)(fault, error, __VA_ARGS__), fault_negative_(error))
#define fault_text(fault, error, ...)                                                              \
	((void)(fault_text)(fault, error, __VA_ARGS__), fault_negative_(error))
#endif

/* Appends one parameter (copied). */
void fault_add_param(struct fault *fault, const char *param);

/* Takes over src's content, which becomes empty. */
void fault_move(struct fault *fault, struct fault *src);
void fault_copy(struct fault *fault, const struct fault *src);
void fault_clear(struct fault *fault);
bool fault_is(const struct fault *fault, const char *code);

/* "CODE: p1, p2" for logs and people; the caller frees it. */
char *fault_describe(const struct fault *fault);

#define CLEANUP_FAULT CLEANUP(fault_clear)

#endif
