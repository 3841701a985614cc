/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/bell.h"

#include "base/cancel.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int bell_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0) {
		/* As for memory: docs/adr/0002. */
		log_error("api-no-eventfd", "error=\"%s\"", strerror(errno));
		abort();
	}
	return fd;
}

void bell_ring(int bell)
{
	uint64_t one = 1;
	/* Only a full counter is refused, and that one is readable already. */
	ssize_t n = write(bell, &one, sizeof(one));

	(void)n;
}

bool bell_wait(int bell, uint64_t deadline_usec)
{
	struct pollfd fd = {.fd = bell, .events = POLLIN};
	uint64_t count;

	if (cancel_poll(NULL, &fd, 1, deadline_usec) <= 0)
		return false;
	return read(bell, &count, sizeof(count)) == (ssize_t)sizeof(count);
}
