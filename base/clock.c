/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <limits.h>
#include <time.h>

uint64_t clock_now_usec(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
}

uint64_t clock_deadline(uint64_t delay_usec)
{
	uint64_t now = clock_now_usec();

	return delay_usec > USEC_FOREVER - now ? USEC_FOREVER : now + delay_usec;
}

int clock_poll_timeout(uint64_t deadline_usec)
{
	uint64_t now = clock_now_usec();

	if (deadline_usec == USEC_FOREVER)
		return -1;
	if (deadline_usec <= now)
		return 0;
	uint64_t msec = (deadline_usec - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC;
	return msec > INT_MAX ? INT_MAX : (int)msec;
}

int64_t clock_wall_sec(void)
{
	return (int64_t)time(NULL);
}
