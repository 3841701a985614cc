/* SPDX-License-Identifier: Apache-2.0 */
/* A file of the user's that goes to one of the server's HTTP handlers, or comes from it. */
#ifndef FERRY_CLI_FILE_H
#define FERRY_CLI_FILE_H

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/value.h"
#include "cli/context.h"

#include <stdbool.h>
#include <stdint.h>

struct file {
	int fd;
	const char *name; /* borrowed */
	bool is_made;     /* it goes away again unless it is kept */
	bool is_regular;
	bool is_source;
	uint64_t n_moved;
};

#define FILE_INIT                                                                                  \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/* For reading; "-": standard input. */
int file_open(struct file *file, const char *name, struct fault *fault);
/* A new one; "-": standard output, unless that is a terminal. -EEXIST. */
int file_create(struct file *file, const char *name, struct fault *fault);
/* To or from the handler at that path of the context's server; the session is added to the queries.
 * Zeros become holes of a new file. Blocks; Ctrl-C ends it.
 * *ret_answer, which may be given as NULL: what the server says of an upload. */
int file_move(struct context *context, const char *path, struct value *queries, struct file *file,
	struct value **ret_answer, struct fault *fault);
/* It is complete: it stays, durably. */
int file_keep(struct file *file, struct fault *fault);
void file_clear(struct file *file);

#define CLEANUP_FILE CLEANUP(file_clear)

#endif
