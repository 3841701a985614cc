/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line: redrawn in place on standard error, when that is a terminal. */
#ifndef FERRY_CLI_PROGRESS_H
#define FERRY_CLI_PROGRESS_H

#include "base/buf.h"
#include "base/value.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	bool enabled;
	bool drawn;
	uint64_t drawn_usec; /* the last time */
};

/* Draws what a task's record tells; at most ten times a second. */
void progress_draw(struct progress *progress, const struct value *task);
/* Takes the line away. */
void progress_clear(struct progress *progress);

/* The line's text, cut to so many columns. */
void progress_format(const struct value *task, size_t columns, struct buf *out);

#endif
