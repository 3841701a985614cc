/* SPDX-License-Identifier: Apache-2.0 */
/* A token bucket shared by threads: bytes per second, changeable while in use. */
#ifndef FERRY_AGENT_COPY_RATE_H
#define FERRY_AGENT_COPY_RATE_H

#include "base/cancel.h"

#include <stdint.h>

struct rate_limit;

/* bytes_per_sec 0: unlimited. */
struct rate_limit *rate_limit_new(uint64_t bytes_per_sec);
struct rate_limit *rate_limit_free(struct rate_limit *rate);
void rate_limit_set(struct rate_limit *rate, uint64_t bytes_per_sec);
uint64_t rate_limit_get(struct rate_limit *rate);
/* Waits until `bytes` may go; 0 or -ECANCELED. NULL never waits. */
int rate_limit_take(struct rate_limit *rate, uint64_t bytes, struct cancel *cancel);

#endif
