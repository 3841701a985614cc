/* SPDX-License-Identifier: Apache-2.0 */
/* Threads for work that takes longer than a request may hold a worker: one per job, a bounded
 * number at once. */
#ifndef FERRY_AGENT_API_JOBS_H
#define FERRY_AGENT_API_JOBS_H

#include <stddef.h>

struct jobs;

struct jobs *jobs_new(size_t max_running);
/* 0: fn(arg) runs on a thread of its own. -EAGAIN: the limit is reached, or the system has no more
 * threads. -ESHUTDOWN: closed. */
int jobs_start(struct jobs *jobs, void (*fn)(void *arg), void *arg);
/* From now on jobs_start refuses. */
void jobs_close(struct jobs *jobs);
/* Closes, waits for every job, frees. NULL is fine. */
struct jobs *jobs_free(struct jobs *jobs);

#endif
