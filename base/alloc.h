/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that does not fail: small objects only. See docs/adr/0002-crash-only-allocation.md:
 * running out of memory ends the process, and the restart takes the same path as after any crash.
 * Whatever is sized by a peer or by a disk is allocated with malloc and checked. */
#ifndef FERRY_BASE_ALLOC_H
#define FERRY_BASE_ALLOC_H

#include <stdarg.h>
#include <stddef.h>

void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t count, size_t size) __attribute__((returns_nonnull));
/* NULL gives NULL. */
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t length) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *format, ...)
	__attribute__((format(printf, 1, 2), malloc, returns_nonnull));
char *xvasprintf(const char *format, va_list args)
	__attribute__((format(printf, 1, 0), malloc, returns_nonnull));

#endif
