/* SPDX-License-Identifier: Apache-2.0 */
/* The thread of a pass and how it is told what to do. What it does: pass_round.c. */
#include "agent/copy/pass.h"

#include "agent/copy/pass_round.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>

enum work { WORK_NONE, WORK_OPEN, WORK_ROUND, WORK_FLUSH };

struct pass {
	struct pass_params params; /* its strings are ours */
	struct cancel *stop;       /* of the thread: by params.cancel, or by pass_close */
	pthread_t thread;
	bool has_thread;
	int wake_fd;          /* written to make the thread look at what is below */
	int ended_fd;         /* written by the thread when it has changed that */
	pthread_mutex_t lock; /* protects all below */
	enum work work;       /* under way, or to be begun */
	bool closing;
	int error; /* what ended the thread */
	struct fault fault;
	struct pass_result result; /* of the last work */
};

/* --- The thread ------------------------------------------------------------------------------- */

static void report(
	struct pass *pass, int error, struct fault *fault, const struct pass_result *result)
{
	{
		SCOPE_LOCK(&pass->lock);
		pass->work = WORK_NONE;
		pass->error = error;
		pass->result = *result;
		fault_move(&pass->fault, fault);
	}
	eventfd_write(pass->ended_fd, 1);
}

/* True: *ret_work is to be done (or nothing yet). False: the pass is being closed. */
static bool look(struct pass *pass, enum work *ret_work)
{
	SCOPE_LOCK(&pass->lock);
	*ret_work = pass->work;
	return !pass->closing;
}

static void run_thread(struct pass *pass)
{
	struct pass_round *round CLEANUP_PASS_ROUND = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass_result result = {0};
	enum work work = WORK_NONE;
	eventfd_t ignored;
	int r = pass_round_open(&pass->params, pass->stop, &round, &fault);

	report(pass, r, &fault, &result);
	while (r == 0 && look(pass, &work)) {
		result = (struct pass_result){0};
		if (work == WORK_ROUND)
			r = pass_round_run(round, &result, &fault);
		else if (work == WORK_FLUSH)
			r = pass_round_flush(round, &fault);
		else
			r = pass_round_idle(round, pass->wake_fd, &fault);
		/* Before the next look: what is asked for from here on wakes again. */
		(void)eventfd_read(pass->wake_fd, &ignored);
		if (work != WORK_NONE || r < 0)
			report(pass, r, &fault, &result);
	}
}

static void *pass_main(void *arg)
{
	run_thread(arg);
	return NULL;
}

/* --- Those who tell it ------------------------------------------------------------------------ */

static void begin(struct pass *pass, enum work work)
{
	{
		SCOPE_LOCK(&pass->lock);
		assert(pass->error || pass->work == WORK_NONE);
		pass->work = work;
	}
	eventfd_write(pass->wake_fd, 1);
}

void pass_begin(struct pass *pass)
{
	begin(pass, WORK_ROUND);
}

void pass_begin_flush(struct pass *pass)
{
	begin(pass, WORK_FLUSH);
}

static bool has_ended(struct pass *pass)
{
	SCOPE_LOCK(&pass->lock);
	return pass->error || pass->work == WORK_NONE;
}

int pass_await(struct pass *pass, struct pass_result *ret_result, struct fault *fault)
{
	return pass_await_until(pass, USEC_FOREVER, ret_result, fault);
}

int pass_await_until(struct pass *pass, uint64_t deadline_usec, struct pass_result *ret_result,
	struct fault *fault)
{
	struct pollfd ended = {.fd = pass->ended_fd, .events = POLLIN};
	struct cancel *cancel = pass->params.cancel;
	eventfd_t ignored;

	while (!has_ended(pass)) {
		int r = cancel_poll(cancel, &ended, 1, deadline_usec);
		if (r == 0) {
			cancel_request(pass->stop, "it was not over in time");
			return fault_text(fault, -ETIMEDOUT, "pass over disk %u: not over in time",
				pass->params.disk);
		}
		if (r < 0) {
			cancel_request(pass->stop, cancel_is_requested(cancel)
							   ? cancel_reason(cancel)
							   : "the pass cannot be waited for");
			cancel = NULL; /* Handed on: the thread ends soon. */
		}
		(void)eventfd_read(pass->ended_fd, &ignored);
	}
	SCOPE_LOCK(&pass->lock);
	if (ret_result)
		*ret_result = pass->result;
	if (pass->error && fault)
		fault_copy(fault, &pass->fault);
	return pass->error;
}

/* --- Life ------------------------------------------------------------------------------------- */

static int start(struct pass *pass, struct fault *fault)
{
	pass->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pass->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pass->wake_fd < 0 || pass->ended_fd < 0)
		return fault_errno(fault, -errno, "pass over disk %u", pass->params.disk);
	int error = pthread_create(&pass->thread, NULL, pass_main, pass);
	if (error)
		return fault_errno(fault, -error, "pass over disk %u: cannot start a thread",
			pass->params.disk);
	pass->has_thread = true;
	return pass_await(pass, NULL, fault);
}

int pass_open(const struct pass_params *params, struct pass **ret_pass, struct fault *fault)
{
	struct pass *pass CLEANUP_PASS = xcalloc(1, sizeof(*pass));

	pass->params = *params;
	pass->params.migration = xstrdup(params->migration);
	endpoint_spec_copy(&pass->params.source, &params->source);
	endpoint_spec_copy(&pass->params.target, &params->target);
	pass->stop = cancel_new();
	pthread_mutex_init(&pass->lock, NULL);
	pass->wake_fd = pass->ended_fd = -1;
	pass->work = WORK_OPEN;
	int r = start(pass, fault);
	if (r < 0)
		return r;
	*ret_pass = TAKE_PTR(pass);
	return 0;
}

static void end_thread(struct pass *pass)
{
	bool busy;

	{
		SCOPE_LOCK(&pass->lock);
		pass->closing = true;
		busy = pass->work != WORK_NONE;
	}
	/* Idle, it logs out. */
	if (busy)
		cancel_request(pass->stop, "the pass was closed");
	eventfd_write(pass->wake_fd, 1);
	pthread_join(pass->thread, NULL);
}

struct pass *pass_close(struct pass *pass)
{
	if (!pass)
		return NULL;
	if (pass->has_thread)
		end_thread(pass);
	if (pass->wake_fd >= 0)
		close(pass->wake_fd);
	if (pass->ended_fd >= 0)
		close(pass->ended_fd);
	fault_clear(&pass->fault);
	pthread_mutex_destroy(&pass->lock);
	cancel_free(pass->stop);
	endpoint_spec_clear(&pass->params.source);
	endpoint_spec_clear(&pass->params.target);
	free((char *)pass->params.migration);
	free(pass);
	return NULL;
}
