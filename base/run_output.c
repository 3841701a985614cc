/* SPDX-License-Identifier: Apache-2.0 */
#include "base/run_output.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#define LINES_PER_SECOND 20
#define LINE_MAX_BYTES   1024
/* After the stop at most this is still read: a descendant that keeps the pipe must not hold us. */
#define LAST_BYTES (1024 * 1024)

struct drain {
	int fd;
	pid_t pid;
	char *log_id;
	struct cancel *stop;
	pthread_t thread;
	/* Below: the thread's own. */
	struct buf line;
	uint64_t window_end_usec;
	unsigned n_logged; /* in this window */
	unsigned long long n_dropped;
};

static void log_dropped(struct drain *drain)
{
	if (drain->n_dropped)
		log_warn(drain->log_id, "pid=%d lines_dropped=%llu limit=%d/s", (int)drain->pid,
			drain->n_dropped, LINES_PER_SECOND);
	drain->n_dropped = 0;
}

static void renew_window(struct drain *drain)
{
	uint64_t now = clock_now_usec();

	if (now < drain->window_end_usec)
		return;
	log_dropped(drain);
	drain->window_end_usec = now + USEC_PER_SEC;
	drain->n_logged = 0;
}

static void end_line(struct drain *drain)
{
	if (drain->line.length && drain->n_logged < LINES_PER_SECOND) {
		log_info(drain->log_id, "pid=%d %s", (int)drain->pid, drain->line.data);
		drain->n_logged++;
	} else if (drain->line.length) {
		drain->n_dropped++;
	}
	drain->line.length = 0;
}

static void take_bytes(struct drain *drain, const char *data, size_t length)
{
	while (length) {
		const char *newline = memchr(data, '\n', length);
		size_t n = newline ? (size_t)(newline - data) : length;
		size_t room = LINE_MAX_BYTES - drain->line.length;

		buf_append(&drain->line, data, MIN(n, room));
		if (!newline)
			return;
		end_line(drain);
		data += n + 1;
		length -= n + 1;
	}
}

/* >0 bytes read, 0 nothing there, negative at the end of the pipe. */
static ssize_t read_some(struct drain *drain)
{
	char data[65536];
	ssize_t n = read(drain->fd, data, sizeof(data));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	renew_window(drain);
	take_bytes(drain, data, (size_t)n);
	return n;
}

static void *drain_run(void *arg)
{
	struct drain *drain = arg;
	ssize_t n = 0;

	while (n >= 0) {
		struct pollfd fd = {.fd = drain->fd, .events = POLLIN};
		uint64_t deadline = drain->n_dropped ? drain->window_end_usec : USEC_FOREVER;
		int r = cancel_poll(drain->stop, &fd, 1, deadline);
		if (r < 0)
			break;
		renew_window(drain);
		if (r > 0)
			n = read_some(drain);
	}
	for (ssize_t total = 0; n >= 0 && total < LAST_BYTES; total += n) {
		n = read_some(drain);
		if (n == 0)
			break;
	}
	end_line(drain);
	log_dropped(drain);
	return NULL;
}

static void drain_release(struct drain *drain)
{
	close(drain->fd);
	cancel_free(drain->stop);
	buf_free(&drain->line);
	free(drain->log_id);
	free(drain);
}

int drain_start(int fd, pid_t pid, const char *log_id, struct drain **ret_drain)
{
	struct drain *drain = xcalloc(1, sizeof(*drain));
	sigset_t all, before;

	drain->fd = fd;
	drain->pid = pid;
	drain->log_id = xstrdup(log_id ? log_id : "run.output");
	drain->stop = cancel_new();
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	/* Signals are for the threads that expect them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&drain->thread, NULL, drain_run, drain);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0) {
		drain_release(drain);
		return -r;
	}
	*ret_drain = drain;
	return 0;
}

struct drain *drain_stop(struct drain *drain)
{
	if (!drain)
		return NULL;
	cancel_request(drain->stop, "the process has ended");
	pthread_join(drain->thread, NULL);
	drain_release(drain);
	return NULL;
}
