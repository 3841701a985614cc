/* SPDX-License-Identifier: Apache-2.0 */
/* Wakes the one thread that waits on it. Rings are remembered, not counted. */
#ifndef FERRY_AGENT_API_BELL_H
#define FERRY_AGENT_API_BELL_H

#include <stdbool.h>
#include <stdint.h>

/* A file descriptor (close it with close(2)); ends the process when there is none to be had. */
int bell_new(void);
/* From any thread; never blocks. */
void bell_ring(int bell);
/* Waits until it rang (true) or the deadline passed (false). */
bool bell_wait(int bell, uint64_t deadline_usec);

#endif
