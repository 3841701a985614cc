/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/jobs.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct job {
	struct job *next;
	struct jobs *jobs;
	pthread_t thread;
	void (*fn)(void *arg);
	void *arg;
	bool done; /* under jobs->lock: the thread is about to end and can be joined */
};

struct jobs {
	pthread_mutex_t lock;
	struct job *first;
	size_t n_running;
	size_t max_running;
	bool closed;
};

struct jobs *jobs_new(size_t max_running)
{
	struct jobs *jobs = xcalloc(1, sizeof(*jobs));

	pthread_mutex_init(&jobs->lock, NULL);
	jobs->max_running = max_running;
	return jobs;
}

/* Takes the ended jobs off the list. */
static struct job *jobs_take_done(struct jobs *jobs)
{
	struct job *done = NULL;
	struct job **p = &jobs->first;

	while (*p) {
		struct job *job = *p;
		if (!job->done) {
			p = &job->next;
			continue;
		}
		*p = job->next;
		job->next = done;
		done = job;
	}
	return done;
}

static void jobs_join(struct job *job)
{
	while (job) {
		struct job *next = job->next;
		pthread_join(job->thread, NULL);
		free(job);
		job = next;
	}
}

static void *job_main(void *arg)
{
	struct job *job = arg;

	job->fn(job->arg);
	SCOPE_LOCK(&job->jobs->lock);
	job->done = true;
	job->jobs->n_running--;
	return NULL;
}

/* Under the lock, so that a job is on the list before anybody can look for it. */
static int jobs_spawn(struct jobs *jobs, struct job *job)
{
	SCOPE_LOCK(&jobs->lock);
	if (jobs->closed)
		return -ESHUTDOWN;
	if (jobs->n_running >= jobs->max_running)
		return -EAGAIN;
	if (pthread_create(&job->thread, NULL, job_main, job) != 0)
		return -EAGAIN;
	job->next = jobs->first;
	jobs->first = job;
	jobs->n_running++;
	return 0;
}

int jobs_start(struct jobs *jobs, void (*fn)(void *arg), void *arg)
{
	struct job *job = xcalloc(1, sizeof(*job));
	struct job *done;
	int r;

	*job = (struct job){.jobs = jobs, .fn = fn, .arg = arg};
	r = jobs_spawn(jobs, job);
	if (r < 0)
		free(job);
	pthread_mutex_lock(&jobs->lock);
	done = jobs_take_done(jobs);
	pthread_mutex_unlock(&jobs->lock);
	jobs_join(done);
	return r;
}

void jobs_close(struct jobs *jobs)
{
	SCOPE_LOCK(&jobs->lock);
	jobs->closed = true;
}

struct jobs *jobs_free(struct jobs *jobs)
{
	struct job *all;

	if (!jobs)
		return NULL;
	pthread_mutex_lock(&jobs->lock);
	jobs->closed = true;
	all = jobs->first;
	jobs->first = NULL;
	pthread_mutex_unlock(&jobs->lock);
	jobs_join(all);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
	return NULL;
}
