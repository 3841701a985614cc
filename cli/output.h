/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: tables, sizes, times. Names come from other machines: control characters in them
 * never reach the terminal. */
#ifndef FERRY_CLI_OUTPUT_H
#define FERRY_CLI_OUTPUT_H

#include "base/buf.h"
#include "base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

struct table;
enum table_align { TABLE_LEFT, TABLE_RIGHT };

struct table *table_new(void);
struct table *table_free(struct table *table);
void table_add_column(struct table *table, const char *title, enum table_align align);
/* The next cell, row by row; the text is copied. */
void table_add(struct table *table, const char *text);
/* Titles and rows, two spaces between the columns. */
void table_write(const struct table *table, struct buf *out);

/* "512 B", "20.0 GiB". The caller frees it. */
char *output_size(uint64_t bytes);
/* "0:05", "12:34", "1:02:03". */
char *output_duration(uint64_t seconds);
/* "2026-08-21 02:00:23Z", "-" for 1970. */
char *output_time(int64_t seconds);
/* The text with control characters as '?'. */
char *output_clean(const char *text);

DEFINE_CLEANUP(struct table *, table_free)
#define CLEANUP_TABLE CLEANUP(cleanup_table_free)

#endif
