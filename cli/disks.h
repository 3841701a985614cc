/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of a migration's disks, which ferryd keeps as JSON texts in a map. */
#ifndef FERRY_CLI_DISKS_H
#define FERRY_CLI_DISKS_H

#include "base/buf.h"
#include "base/value.h"

/* An array of the structs whose keys are prefix and the disk's number, in order of the numbers;
 * what is no such JSON is left out. map may be NULL. */
struct value *disks_read(const struct value *map, const char *prefix);

/* A table, one line a disk and one for all; nothing when there is no disk. */
void disks_write(const struct value *disks, struct buf *out);

/* A table of what could not be read at the source (migration.unreadable, by disks_read), and what
 * that means; nothing when there is none. */
void disks_write_unreadable(const struct value *disks, struct buf *out);

#endif
