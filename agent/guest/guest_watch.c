/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest_watch.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <sys/eventfd.h>

/* A guest can make events at will (RESET, RTC_CHANGE ...), and nobody may read them. */
#define MAX_UNREAD 256

struct event {
	struct event *next;
	char *name;
	struct value *data;
	uint64_t usec;
};

struct guest_watch {
	struct guest_watch *next;
	struct guest_events *events;
	int fd; /* eventfd: its count is not 0 while there are events */
	struct event *first;
	struct event *last;
	unsigned n_unread;
};

struct guest_events {
	pthread_mutex_t lock; /* protects the rest, and the watches */
	unsigned n_users;     /* the guest and its watches */
	struct guest_watch *watches;
	bool has_ended;
};

struct guest_events *guest_events_new(void)
{
	struct guest_events *events = xcalloc(1, sizeof(*events));

	pthread_mutex_init(&events->lock, NULL);
	events->n_users = 1;
	return events;
}

static void leave(struct guest_events *events)
{
	pthread_mutex_lock(&events->lock);
	bool is_last = --events->n_users == 0;
	pthread_mutex_unlock(&events->lock);

	if (!is_last)
		return;
	pthread_mutex_destroy(&events->lock);
	free(events);
}

struct guest_events *guest_events_free(struct guest_events *events)
{
	if (events)
		leave(events);
	return NULL;
}

static void event_free(struct event *event)
{
	free(event->name);
	value_free(event->data);
	free(event);
}

/* With the lock held, and an event there. */
static struct event *pop(struct guest_watch *watch)
{
	struct event *event = watch->first;

	watch->first = event->next;
	if (!watch->first)
		watch->last = NULL;
	watch->n_unread--;
	return event;
}

/* With the lock held. */
static void push(struct guest_watch *watch, const char *name, const struct value *data)
{
	struct event *event = xcalloc(1, sizeof(*event));

	event->name = xstrdup(name);
	event->data = data ? value_copy(data) : NULL;
	event->usec = clock_now_usec();
	if (watch->n_unread == MAX_UNREAD)
		event_free(pop(watch));
	if (watch->last)
		watch->last->next = event;
	else
		watch->first = event;
	watch->last = event;
	watch->n_unread++;
	eventfd_write(watch->fd, 1);
}

void guest_events_tell(struct guest_events *events, const char *name, const struct value *data)
{
	SCOPE_LOCK(&events->lock);
	for (struct guest_watch *watch = events->watches; watch; watch = watch->next)
		push(watch, name, data);
}

void guest_events_end(struct guest_events *events)
{
	SCOPE_LOCK(&events->lock);
	events->has_ended = true;
	for (struct guest_watch *watch = events->watches; watch; watch = watch->next)
		push(watch, "ENDED", NULL);
}

struct guest_watch *guest_events_watch(struct guest_events *events)
{
	struct guest_watch *watch = xcalloc(1, sizeof(*watch));

	watch->events = events;
	watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	SCOPE_LOCK(&events->lock);
	events->n_users++;
	watch->next = events->watches;
	events->watches = watch;
	if (events->has_ended)
		push(watch, "ENDED", NULL);
	return watch;
}

struct guest_watch *guest_watch_free(struct guest_watch *watch)
{
	if (!watch)
		return NULL;
	pthread_mutex_lock(&watch->events->lock);
	struct guest_watch **at = &watch->events->watches;
	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	pthread_mutex_unlock(&watch->events->lock);

	while (watch->first)
		event_free(pop(watch));
	leave(watch->events);
	cleanup_close(&watch->fd);
	free(watch);
	return NULL;
}

int guest_watch_fd(const struct guest_watch *watch)
{
	return watch->fd;
}

bool guest_watch_take(
	struct guest_watch *watch, char **ret_name, struct value **ret_data, uint64_t *ret_usec)
{
	eventfd_t count;
	SCOPE_LOCK(&watch->events->lock);

	if (!watch->first)
		return false;
	struct event *event = pop(watch);
	if (!watch->first)
		eventfd_read(watch->fd, &count);
	*ret_name = event->name;
	*ret_data = event->data;
	*ret_usec = event->usec;
	free(event);
	return true;
}
