/* SPDX-License-Identifier: Apache-2.0 */
/* A cancel token: one event that every wait of a piece of work sees. Requesting is sticky, may be
 * done from any thread, any number of times; the first reason is kept. */
#ifndef FERRY_BASE_CANCEL_H
#define FERRY_BASE_CANCEL_H

#include "base/cleanup.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

struct cancel;

struct cancel *cancel_new(void);
struct cancel *cancel_free(struct cancel *cancel);

void cancel_request(struct cancel *cancel, const char *reason);

/* Whether it was requested. A NULL token is never requested. Does not block. */
bool cancel_is_requested(const struct cancel *cancel);

/* The first reason, owned by the token; "" while not requested. */
const char *cancel_reason(struct cancel *cancel);

/* Readable once requested; owned by the token; -1 for NULL. */
int cancel_fd(const struct cancel *cancel);

/* poll(2) on fds until one is ready, the deadline passes or the token is requested.
 * Returns the number of ready fds, 0 at the deadline, -ECANCELED, or another negative errno.
 * cancel may be NULL; n_fds at most 15. Restarts after EINTR. */
int cancel_poll(
	const struct cancel *cancel, struct pollfd *fds, nfds_t n_fds, uint64_t deadline_usec);

/* Sleeps for the duration. 0 when it has passed, -ECANCELED when cancelled before. */
int cancel_sleep(const struct cancel *cancel, uint64_t duration_usec);

DEFINE_CLEANUP(struct cancel *, cancel_free)
#define CLEANUP_CANCEL CLEANUP(cleanup_cancel_free)

#endif
