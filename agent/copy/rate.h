/* SPDX-License-Identifier: Apache-2.0 */
/* A token bucket shared by threads: bytes per second, changeable while in use. */
#ifndef FERRY_AGENT_COPY_RATE_H
#define FERRY_AGENT_COPY_RATE_H

#include "base/cancel.h"
#include "base/cleanup.h"

#include <stdint.h>

struct rate_limit;

/* bytes_per_sec 0: unlimited. */
struct rate_limit *rate_limit_new(uint64_t bytes_per_sec);
struct rate_limit *rate_limit_free(struct rate_limit *rate);
void rate_limit_set(struct rate_limit *rate, uint64_t bytes_per_sec);
uint64_t rate_limit_get(struct rate_limit *rate);

/* Takes `bytes` if they may go now: returns 0. Otherwise nothing is taken, and it returns the
 * monotonic time (usec) at which to ask again: at most 250 ms ahead, so that a limit that was
 * changed meanwhile is seen. For threads that have a connection to keep alive while they wait. Does
 * not block. NULL always gives 0. */
uint64_t rate_limit_try(struct rate_limit *rate, uint64_t bytes);

/* Waits until `bytes` may go; 0 or -ECANCELED. NULL never waits. */
int rate_limit_take(struct rate_limit *rate, uint64_t bytes, struct cancel *cancel);

DEFINE_CLEANUP(struct rate_limit *, rate_limit_free)
#define CLEANUP_RATE_LIMIT CLEANUP(cleanup_rate_limit_free)

#endif
