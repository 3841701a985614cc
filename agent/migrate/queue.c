/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/queue.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A sender that only tells its peer of an abort leaves room without a word. */
#define LOOK_USEC USEC_PER_SEC

void queue_init(
	struct queue *queue, struct registry *registry, const struct supervisor_params *params)
{
	*queue = (struct queue){.registry = registry,
		.max_sending = params->max_sending,
		.max_waiting = params->max_queued};
	pthread_mutex_init(&queue->lock, NULL);
}

void queue_deinit(struct queue *queue)
{
	pthread_mutex_destroy(&queue->lock);
}

/* With the lock held, as all that follows up to queue_enter(). */
static struct queue_entry *first_waiting(struct queue *queue)
{
	struct queue_entry *entry = queue->first;

	while (entry && !entry->waits)
		entry = entry->next;
	return entry;
}

static unsigned count_waiting(const struct queue *queue)
{
	unsigned n = 0;

	for (const struct queue_entry *entry = queue->first; entry; entry = entry->next)
		n += entry->waits;
	return n;
}

static unsigned count_beginning(const struct queue *queue)
{
	unsigned n = 0;

	for (const struct queue_entry *entry = queue->first; entry; entry = entry->next)
		n += !entry->waits && !entry->is_sent;
	return n;
}

static bool has_room(struct queue *queue)
{
	return registry_count_senders(queue->registry) + count_beginning(queue) <
	       queue->max_sending;
}

static void ring(struct queue_entry *entry)
{
	uint64_t one = 1;

	/* It looks by itself, later, if this fails. */
	if (entry && write(entry->bell, &one, sizeof(one)) < 0)
		return;
}

static void append(struct queue *queue, struct queue_entry *entry)
{
	struct queue_entry **at = &queue->first;

	while (*at)
		at = &(*at)->next;
	entry->next = NULL;
	*at = entry;
}

static int check_twice(struct queue *queue, const char *vm, struct fault *fault)
{
	for (const struct queue_entry *other = queue->first; other; other = other->next)
		if (other->waits && strcmp(other->vm, vm) == 0)
			return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VM", vm,
				other->operation, other->task, NULL);
	return 0;
}

int queue_check(struct queue *queue, const char *vm, struct fault *fault)
{
	SCOPE_LOCK(&queue->lock);
	return check_twice(queue, vm, fault);
}

int queue_enter(struct queue *queue, struct queue_entry *entry, struct fault *fault)
{
	SCOPE_LOCK(&queue->lock);
	int r = check_twice(queue, entry->vm, fault);

	if (r < 0)
		return r;
	entry->waits = first_waiting(queue) || !has_room(queue);
	if (entry->waits && count_waiting(queue) >= queue->max_waiting) {
		char *limit CLEANUP_FREE = xasprintf("%u", queue->max_sending);
		return fault_set(fault, -EBUSY, "TOO_MANY_STORAGE_MIGRATES", limit, NULL);
	}
	entry->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (entry->bell < 0)
		return fault_errno(fault, -errno, "making room in the queue of migrations");
	append(queue, entry);
	return entry->waits;
}

void queue_show(struct queue *queue, struct queue_entry *entry, const char *ref)
{
	SCOPE_LOCK(&queue->lock);
	entry->shown = ref;
}

/* Whether its turn has come: then it waits no more. */
static bool take_turn(struct queue *queue, struct queue_entry *entry)
{
	SCOPE_LOCK(&queue->lock);
	if (first_waiting(queue) != entry || !has_room(queue))
		return false;
	entry->waits = false;
	/* There may be room for two. */
	ring(first_waiting(queue));
	return true;
}

int queue_wait(struct queue *queue, struct queue_entry *entry, struct cancel *stop)
{
	struct pollfd fds[2] = {
		{.fd = entry->bell, .events = POLLIN}, {.fd = cancel_fd(stop), .events = POLLIN}};
	uint64_t n;

	if (take_turn(queue, entry))
		return 1;
	int r = cancel_poll(entry->cancel, fds, 2, clock_deadline(LOOK_USEC));
	if (r > 0 && read(entry->bell, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return -errno;
	return r < 0 ? r : fds[1].revents ? -ECANCELED : 0;
}

int queue_send(struct queue *queue, struct queue_entry *entry, struct migration *migration)
{
	SCOPE_LOCK(&queue->lock);
	int r = registry_add(queue->registry, migration);

	entry->is_sent = r == 0;
	return r;
}

void queue_leave(struct queue *queue, struct queue_entry *entry)
{
	SCOPE_LOCK(&queue->lock);
	struct queue_entry **at = &queue->first;

	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
	close(entry->bell);
	ring(first_waiting(queue));
}

void queue_ring(struct queue *queue)
{
	SCOPE_LOCK(&queue->lock);
	ring(first_waiting(queue));
}

bool queue_cancel(struct queue *queue, const char *uuid, const char *who)
{
	SCOPE_LOCK(&queue->lock);
	for (struct queue_entry *entry = queue->first; entry; entry = entry->next) {
		if (strcmp(entry->uuid, uuid) != 0 || !entry->cancel)
			continue;
		cancel_request(entry->cancel, who);
		return true;
	}
	return false;
}

bool queue_is_time_to_tell(struct queue *queue, const struct queue_entry *entry)
{
	SCOPE_LOCK(&queue->lock);
	uint64_t now = clock_now_usec();

	if (first_waiting(queue) != entry || now - queue->told_usec < LOOK_USEC)
		return false;
	queue->told_usec = now;
	return true;
}

struct value *queue_list(struct queue *queue)
{
	struct value *refs = value_new_array();

	SCOPE_LOCK(&queue->lock);
	for (struct queue_entry *entry = queue->first; entry; entry = entry->next)
		if (entry->waits)
			value_append_string(refs, entry->shown ? entry->shown : "");
	return refs;
}
