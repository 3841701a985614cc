/* SPDX-License-Identifier: Apache-2.0 */
/* Who may send next: the moves that this host was asked for while as many are sent as may be, in
 * the order in which they came. It decides only; who waits does so in its own thread, and shows it
 * (report_queue.h). Thread-safe.
 */
#ifndef FERRY_AGENT_MIGRATE_QUEUE_H
#define FERRY_AGENT_MIGRATE_QUEUE_H

#include "agent/migrate/registry.h"
#include "base/cancel.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

/* One move, from when it has been checked until its sender is in the registry. All is borrowed, and
 * the entry itself too, until queue_leave(). Zero what is the queue's. */
struct queue_entry {
	const char *uuid; /* of the migration */
	const char *vm;
	const char *operation;
	const char *task;
	struct cancel *cancel; /* of the call that waits; may be NULL */

	/* The queue's. */
	const char *shown; /* ref of the object that shows it; NULL: none */
	struct queue_entry *next;
	int bell; /* an eventfd: look whether it is your turn */
	bool waits;
	bool is_sent; /* the registry counts it */
};

struct queue {
	struct registry *registry; /* of what is sent */
	unsigned max_sending;
	unsigned max_waiting;

	pthread_mutex_t lock;      /* protects the rest */
	struct queue_entry *first; /* in the order in which they came */
	uint64_t told_usec;        /* see queue_is_time_to_tell() */
};

void queue_init(
	struct queue *queue, struct registry *registry, const struct supervisor_params *params);
void queue_deinit(struct queue *queue);

/* 0: it may begin. 1: it waits, queue_wait() tells when it may. Or a fault, and it is not in the
 * queue: TOO_MANY_STORAGE_MIGRATES [limit], OTHER_OPERATION_IN_PROGRESS when the same VM's move
 * waits already. */
int queue_enter(struct queue *queue, struct queue_entry *entry, struct fault *fault);
/* Whether a move of that VM waits: OTHER_OPERATION_IN_PROGRESS, as of queue_enter. Not whether
 * there is room: that is another by the time of the move (contract 2.6.3). */
int queue_check(struct queue *queue, const char *vm, struct fault *fault);
/* The object that shows it from now on, borrowed; NULL: none does. */
void queue_show(struct queue *queue, struct queue_entry *entry, const char *ref);
/* Blocks a second at most: 1 when it may begin, 0 not yet, -ECANCELED by its own token or `stop`.
 */
int queue_wait(struct queue *queue, struct queue_entry *entry, struct cancel *stop);
/* Puts what it was about into the registry, and counts it there from now on. Not counted twice even
 * for a moment, as where nobody may wait that one too many is refused. -EEXIST as registry_add().
 */
int queue_send(struct queue *queue, struct queue_entry *entry, struct migration *migration);
/* It is in the registry, or will never be. */
void queue_leave(struct queue *queue, struct queue_entry *entry);
/* One that is sent has ended: somebody's turn may have come. */
void queue_ring(struct queue *queue);

/* Requests the token of the move, if it has not left. */
bool queue_cancel(struct queue *queue, const char *uuid, const char *who);

/* Whether this entry is to write down the places of all, as the first one does once a second. */
bool queue_is_time_to_tell(struct queue *queue, const struct queue_entry *entry);
/* Those that wait, in order: array of the refs that show them, for the caller to free. */
struct value *queue_list(struct queue *queue);

#endif
