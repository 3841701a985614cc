/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a long file through the page cache without filling the cache with it: of a file that
 * nobody has in memory, what was read is given back. */
#ifndef FERRY_AGENT_COPY_BEHIND_H
#define FERRY_AGENT_COPY_BEHIND_H

#include <stdbool.h>
#include <stdint.h>

/* Begins as zeros: all stays in the cache. Of one descriptor and one thread. */
struct behind {
	bool is_on;
	uint64_t window; /* that is being read, counted from 1; 0: none */
};

/* Before the first read: whether the file is in memory, by samples. What is in use by another, if
 * only in part, is not given back. */
void behind_begin(struct behind *behind, int fd, uint64_t size_bytes);
/* At a read: a window that is left is given back. Short reads, as of what a guest has written,
 * leave the cache as it is. */
void behind_read(struct behind *behind, int fd, uint64_t offset, uint64_t length);
/* No more is read. */
void behind_end(struct behind *behind, int fd);

#endif
