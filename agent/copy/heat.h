/* SPDX-License-Identifier: Apache-2.0 */
/* Which regions of a disk the guest writes again and again: a history of the last rounds, in a
 * table of fixed size. A region is hot when the log had something in it in at least two of the four
 * rounds before this one. Regions that share a place in the table (disks beyond some GiB) share
 * their fate: the order suffers, nothing else. */
#ifndef FERRY_AGENT_COPY_HEAT_H
#define FERRY_AGENT_COPY_HEAT_H

#include <stdbool.h>
#include <stdint.h>

#define HEAT_REGION (UINT64_C(1) << 20)
#define HEAT_BITS   12
#define HEAT_PLACES (1U << HEAT_BITS)

/* Begins as zeros. */
struct heat {
	uint8_t history[HEAT_PLACES]; /* highest bit: the last round that has ended */
	bool touched[HEAT_PLACES];    /* in this round */
};

/* The log has something in the region that holds the offset. Does not change what is hot before
 * the round ends. */
void heat_touch(struct heat *heat, uint64_t offset);
bool heat_is_hot(const struct heat *heat, uint64_t offset);
void heat_end_round(struct heat *heat);

#endif
