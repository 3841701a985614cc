/* SPDX-License-Identifier: Apache-2.0 */
/* Each window cannot be looked at when it is come to: the kernel reads ahead, by megabytes on some
 * hosts, and what it has read for us looks like anybody's. */
#include "agent/copy/behind.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* As large as what a copy thread claims at once. */
#define WINDOW_BYTES    ((uint64_t)4 << 20)
#define LONG_READ_BYTES ((uint64_t)64 << 10)
#define N_SAMPLES       64
#define SAMPLE_BYTES    ((uint64_t)1 << 20)
#define MIN_PAGE_BYTES  4096
/* Of what is looked at, this part may be in memory by chance. */
#define CHANCE 100

/* Pages of the sample that are in memory; mincore() says all, of a file that this process may not
 * write. */
static size_t n_in_memory(int fd, uint64_t from)
{
	unsigned char pages[SAMPLE_BYTES / MIN_PAGE_BYTES] = {0};
	size_t n = (size_t)SAMPLE_BYTES / (size_t)sysconf(_SC_PAGESIZE), n_there = 0;
	void *map = mmap(NULL, (size_t)SAMPLE_BYTES, PROT_NONE, MAP_SHARED, fd, (off_t)from);

	if (map == MAP_FAILED)
		return n;
	int r = mincore(map, (size_t)SAMPLE_BYTES, pages);
	munmap(map, (size_t)SAMPLE_BYTES);
	for (size_t i = 0; i < n; i++)
		n_there += r < 0 || pages[i] & 1;
	return n_there;
}

void behind_begin(struct behind *behind, int fd, uint64_t size_bytes)
{
	uint64_t step = MAX(size_bytes / N_SAMPLES, SAMPLE_BYTES) / SAMPLE_BYTES * SAMPLE_BYTES;
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n_there = 0;
	uint64_t n_bytes = 0;

	for (uint64_t from = 0; from < size_bytes; from += step) {
		n_there += n_in_memory(fd, from);
		n_bytes += MIN(SAMPLE_BYTES, size_bytes - from);
	}
	*behind = (struct behind){.is_on = n_there * page <= n_bytes / CHANCE};
}

void behind_end(struct behind *behind, int fd)
{
	if (behind->is_on && behind->window)
		posix_fadvise(fd, (off_t)((behind->window - 1) * WINDOW_BYTES), (off_t)WINDOW_BYTES,
			POSIX_FADV_DONTNEED);
	behind->window = 0;
}

void behind_read(struct behind *behind, int fd, uint64_t offset, uint64_t length)
{
	uint64_t window = offset / WINDOW_BYTES + 1;

	if (!behind->is_on || length < LONG_READ_BYTES || behind->window == window)
		return;
	behind_end(behind, fd);
	behind->window = window;
}
