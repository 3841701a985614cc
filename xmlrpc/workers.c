/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/workers.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>

struct workers {
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t changed;
	struct job *first;
	struct job **end;
	bool stopping;

	pthread_t *threads;
	unsigned n_threads;
};

/* The next job; NULL when there will be none. */
static struct job *next_job(struct workers *workers)
{
	SCOPE_LOCK(&workers->lock);
	while (!workers->first && !workers->stopping)
		pthread_cond_wait(&workers->changed, &workers->lock);
	struct job *job = workers->first;
	if (!job)
		return NULL;
	workers->first = job->next;
	if (!workers->first)
		workers->end = &workers->first;
	return job;
}

static void *worker_main(void *arg)
{
	struct workers *workers = arg;
	struct job *job;

	while ((job = next_job(workers)))
		job->run(job);
	return NULL;
}

struct workers *workers_start(unsigned n)
{
	struct workers *workers = xcalloc(1, sizeof(*workers));
	int r = 0;

	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->changed, NULL);
	workers->end = &workers->first;
	workers->threads = xcalloc(n, sizeof(*workers->threads));
	while (r == 0 && workers->n_threads < n) {
		r = pthread_create(
			&workers->threads[workers->n_threads], NULL, worker_main, workers);
		if (r == 0)
			workers->n_threads++;
	}
	if (workers->n_threads)
		return workers;
	workers_stop(workers);
	errno = r ? r : EINVAL;
	return NULL;
}

void workers_submit(struct workers *workers, struct job *job)
{
	SCOPE_LOCK(&workers->lock);
	job->next = NULL;
	*workers->end = job;
	workers->end = &job->next;
	pthread_cond_signal(&workers->changed);
}

static void request_stop(struct workers *workers)
{
	SCOPE_LOCK(&workers->lock);
	workers->stopping = true;
	pthread_cond_broadcast(&workers->changed);
}

struct workers *workers_stop(struct workers *workers)
{
	if (!workers)
		return NULL;
	request_stop(workers);
	for (unsigned i = 0; i < workers->n_threads; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->changed);
	pthread_mutex_destroy(&workers->lock);
	free(workers->threads);
	free(workers);
	return NULL;
}
