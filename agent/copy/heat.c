/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/heat.h"

#define RECENT     0xf0 /* the last four rounds */
#define LAST_ROUND 0x80

/* Fibonacci hashing: file systems write at regular distances, which must not all meet. */
static unsigned place(uint64_t offset)
{
	return (unsigned)(offset / HEAT_REGION * UINT64_C(0x9e3779b97f4a7c15) >> (64 - HEAT_BITS));
}

void heat_touch(struct heat *heat, uint64_t offset)
{
	heat->touched[place(offset)] = true;
}

bool heat_is_hot(const struct heat *heat, uint64_t offset)
{
	return __builtin_popcount(heat->history[place(offset)] & RECENT) >= 2;
}

void heat_end_round(struct heat *heat)
{
	for (unsigned i = 0; i < HEAT_PLACES; i++) {
		heat->history[i] =
			(uint8_t)(heat->history[i] >> 1 | (heat->touched[i] ? LAST_ROUND : 0));
		heat->touched[i] = false;
	}
}
