/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cancel.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#define MAX_FDS 16

struct cancel {
	int fd;
	pthread_mutex_t lock; /* protects reason */
	char *reason;         /* NULL: not requested; never changed once set */
};

struct cancel *cancel_new(void)
{
	struct cancel *cancel = xcalloc(1, sizeof(*cancel));

	cancel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert(cancel->fd >= 0);
	pthread_mutex_init(&cancel->lock, NULL);
	return cancel;
}

struct cancel *cancel_free(struct cancel *cancel)
{
	if (!cancel)
		return NULL;
	close(cancel->fd);
	pthread_mutex_destroy(&cancel->lock);
	free(cancel->reason);
	free(cancel);
	return NULL;
}

void cancel_request(struct cancel *cancel, const char *reason)
{
	SCOPE_LOCK(&cancel->lock);
	if (cancel->reason)
		return;
	__atomic_store_n(&cancel->reason, xstrdup(reason ? reason : ""), __ATOMIC_RELEASE);
	ssize_t ignored = write(cancel->fd, &(uint64_t){1}, sizeof(uint64_t));
	(void)ignored; /* A non-blocking eventfd takes the first write. */
}

bool cancel_is_requested(const struct cancel *cancel)
{
	return cancel && __atomic_load_n(&cancel->reason, __ATOMIC_ACQUIRE);
}

const char *cancel_reason(struct cancel *cancel)
{
	const char *reason = __atomic_load_n(&cancel->reason, __ATOMIC_ACQUIRE);

	return reason ? reason : "";
}

int cancel_fd(const struct cancel *cancel)
{
	return cancel ? cancel->fd : -1;
}

int cancel_poll(
	const struct cancel *cancel, struct pollfd *fds, nfds_t n_fds, uint64_t deadline_usec)
{
	struct pollfd all[MAX_FDS];

	assert(n_fds < MAX_FDS);
	for (;;) {
		if (n_fds)
			memcpy(all, fds, n_fds * sizeof(*fds));
		all[n_fds] = (struct pollfd){.fd = cancel_fd(cancel), .events = POLLIN};
		int n = poll(all, n_fds + 1, clock_poll_timeout(deadline_usec));
		if (cancel_is_requested(cancel))
			return -ECANCELED;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* One poll(2) waits for 24 days at most. */
		if (n == 0 && clock_poll_timeout(deadline_usec) != 0)
			continue;
		if (n_fds)
			memcpy(fds, all, n_fds * sizeof(*fds));
		return n;
	}
}

int cancel_sleep(const struct cancel *cancel, uint64_t duration_usec)
{
	return cancel_poll(cancel, NULL, 0, clock_deadline(duration_usec));
}
