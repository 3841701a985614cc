/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FERRY_CLI_MIGRATION_WATCH_H
#define FERRY_CLI_MIGRATION_WATCH_H

#include "cli/context.h"
#include "cli/object.h"

/* Follows it until it has ended: on a terminal one line, redrawn, else a line on standard error for
 * each change, at most one a second. -ECANCELED: interrupted; it goes on. */
int migration_watch(struct context *context, const struct object *migration, struct fault *fault);

/* The line's text. */
void migration_watch_format(const struct value *record, struct buf *out);

#endif
