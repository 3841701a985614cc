/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of a database file that is in use: a connection of its own, which never writes to it and
 * keeps no writer waiting. Belongs to one thread at a time. */
#ifndef FERRY_SCHEMA_DB_COPIER_H
#define FERRY_SCHEMA_DB_COPIER_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stdint.h>

struct db_copier;

int db_copier_new(const char *path, struct db_copier **ret_copier, struct fault *fault);
struct db_copier *db_copier_free(struct db_copier *copier); /* NULL is fine */
/* A number that is another one after each commit to the file, whoever made it; it means nothing to
 * another copier. */
int db_copier_version(struct db_copier *copier, int64_t *ret_version, struct fault *fault);
/* All that was committed at one moment, as a database of its own (mode 0600), in the place of a
 * file that may be there. Not durable. */
int db_copier_write(struct db_copier *copier, const char *path, struct fault *fault);

#endif
