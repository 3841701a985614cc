/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that reads a pipe to its end and logs the lines, at most 20 a second. The writer never
 * waits for the log: what is too much is read, counted and dropped. */
#ifndef FERRY_BASE_RUN_OUTPUT_H
#define FERRY_BASE_RUN_OUTPUT_H

#include <sys/types.h>

struct drain;

/* Takes over fd (non-blocking reads are set up here). 0 or a negative errno; the fd is closed
 * either way in the end. */
int drain_start(int fd, pid_t pid, const char *log_id, struct drain **ret_drain);
/* Reads what is there, logs the rest, ends the thread, frees. Does not wait for the writer. */
struct drain *drain_stop(struct drain *drain);

#endif
