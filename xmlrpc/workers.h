/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed number of threads that run jobs in the order they came; private to the server. */
#ifndef FERRY_XMLRPC_WORKERS_H
#define FERRY_XMLRPC_WORKERS_H

struct workers;

/* Stands within what the job is about; belongs to that, which may be gone once run() returns. */
struct job {
	void (*run)(struct job *job);
	struct job *next; /* private */
};

/* NULL when not one thread could be started (errno tells). */
struct workers *workers_start(unsigned n);
void workers_submit(struct workers *workers, struct job *job);
/* Runs what was submitted, then ends. Blocks until then. NULL is fine. */
struct workers *workers_stop(struct workers *workers);

#endif
