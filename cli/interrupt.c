/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/interrupt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

static struct cancel *tokens[2];

/* Signals are taken by a thread and not by a handler: requesting a token takes a lock. */
static void *take_signals(void *arg)
{
	const sigset_t *set = arg;
	int signal_number;

	for (size_t i = 0; i < ARRAY_SIZE(tokens);) {
		if (sigwait(set, &signal_number) == 0)
			cancel_request(tokens[i++], "interrupted");
	}
	/* A third one ends the program where it is. */
	pthread_sigmask(SIG_UNBLOCK, set, NULL);
	for (;;)
		pause();
	return NULL;
}

int interrupt_start(struct fault *fault)
{
	static sigset_t set;
	pthread_t thread;

	for (size_t i = 0; i < ARRAY_SIZE(tokens); i++)
		tokens[i] = cancel_new();
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* A reader that went away is an error of write(2). */
	signal(SIGPIPE, SIG_IGN);
	int r = -pthread_create(&thread, NULL, take_signals, &set);
	if (r < 0)
		return fault_errno(fault, r, "starting a thread");
	pthread_detach(thread);
	return 0;
}

struct cancel *interrupt_first(void)
{
	return tokens[0];
}

struct cancel *interrupt_second(void)
{
	return tokens[1];
}
