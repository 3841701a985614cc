/* SPDX-License-Identifier: Apache-2.0 */
/* One copy thread: its own source, its own session with the target, its own buffers. Seen by
 * copier.c only. */
#ifndef FERRY_AGENT_COPY_WORKER_H
#define FERRY_AGENT_COPY_WORKER_H

#include "agent/copy/copier.h"
#include "agent/copy/cursor.h"
#include "agent/copy/ledger.h"

#include <pthread.h>
#include <stddef.h>

/* What the threads of one run share. */
struct copy_crew {
	const struct copy_params *params;
	uint64_t size_bytes;
	size_t request_bytes;
	unsigned n_buffers; /* per thread */
	struct cursor *cursor;
	struct ledger *ledger;
	struct cancel *stop;  /* requested by cancel and by the first thread that fails */
	int ended_fd;         /* eventfd: readable when the last thread has ended */
	pthread_mutex_t lock; /* protects all below */
	unsigned n_copying;   /* threads that may still enter chunks */
	unsigned n_alive;
	int error; /* of the first thread that failed */
	struct fault fault;
};

struct copy_worker {
	struct copy_crew *crew;
	unsigned index;
	pthread_t thread;
};

/* Thread body; arg is a struct copy_worker. Copies until the cursor is at its end; the last thread
 * to get there does the last checkpoint. */
void *copy_worker_main(void *arg);

/* Records the first failure and stops all threads; takes over the fault's content. */
void copy_crew_fail(struct copy_crew *crew, int error, struct fault *fault);

#endif
