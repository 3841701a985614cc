/* SPDX-License-Identifier: Apache-2.0 */
/* Time. Waits and deadlines use the monotonic clock in microseconds; wall time is for records only.
 */
#ifndef FERRY_BASE_CLOCK_H
#define FERRY_BASE_CLOCK_H

#include <stdint.h>

#define USEC_PER_SEC  UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_FOREVER  UINT64_MAX

/* CLOCK_MONOTONIC in microseconds. */
uint64_t clock_now_usec(void);

/* now + delay, saturating at USEC_FOREVER. */
uint64_t clock_deadline(uint64_t delay_usec);

/* Milliseconds until the deadline for poll(2): rounded up, 0 when past, -1 for USEC_FOREVER. */
int clock_poll_timeout(uint64_t deadline_usec);

/* Seconds since 1970-01-01 UTC. */
int64_t clock_wall_sec(void);

#endif
