/* SPDX-License-Identifier: Apache-2.0 */
/* What guests.c (operations), residents.c (the list of what runs), guests_moving.c (migrations) and
 * guests_recover.c share. */
#ifndef FERRY_AGENT_VM_GUESTS_INTERNAL_H
#define FERRY_AGENT_VM_GUESTS_INTERNAL_H

#include "agent/guest/guest.h"
#include "agent/vm/guests.h"

#include <pthread.h>

#define GUESTS_KIND "qemu" /* of rows in the journal of agent.db; their name is the run folder */

/* A guest of this host, from the moment at which its memory is promised to it until its VM is
 * Halted. Freed when nobody holds it. */
struct resident {
	struct guests *guests;
	char *run_dir;
	uint64_t memory_bytes;
	struct cancel *ended;  /* requested when its VM is Halted */
	struct cancel *waited; /* requested when it has the memory, or its process has ended */
	/* guests->lock protects the rest. */
	char *vm;        /* ref; NULL while it waits for the memory of one that moves here */
	char *migration; /* that brings it, until it is one like any other */
	struct resident *next;
	unsigned n_refs;
	struct guest *guest; /* set once */
	bool is_starting;    /* belongs to the thread that starts it */
	bool has_ended;      /* the process */
	bool has_memory;     /* of one that is incoming: all of it */
	char *end_reason;    /* why the process ended */
	bool has_news;       /* is_paused is to be stored */
	bool is_paused;
	bool is_shutting_down;
	bool is_given_away;  /* its VM is another host's: its end is none of the VM's */
	bool is_told_to_run; /* by guests_take_over */
};

struct guests {
	const struct storage *storage;
	struct pool_db *pool; /* storage's */
	char *folder;
	char *machines; /* file that QEMU's list of machine types is written to, while it is read */
	char *program;
	uint64_t shutdown_usec;
	bool is_doubtful;
	size_t n_unknown; /* guests that no VM is found for */
	void (*memory)(int64_t *ret_total_bytes, int64_t *ret_free_bytes);
	struct cancel *closing;
	pthread_t keeper; /* stores what the processes do */
	bool has_keeper;
	pthread_mutex_t asking; /* one at a time asks QEMU for its machine types */
	pthread_mutex_t lock;   /* protects the rest, and what struct resident says */
	pthread_cond_t change;
	struct resident *first;
	int64_t next_domid;
	bool is_stopping;
};

/* Adds one, starting, held by the list and by the caller; either vm or migration is NULL.
 * HOST_NOT_ENOUGH_FREE_MEMORY. */
int resident_add(struct guests *guests, const char *vm, const char *migration,
	const struct guest_spec *spec, struct resident **ret_resident, struct fault *fault);
/* Held for the caller; NULL when none of that VM runs. */
struct resident *resident_find(struct guests *guests, const char *vm);
/* The same of one that a migration brings, also when its QEMU has ended. */
struct resident *resident_find_incoming(struct guests *guests, const char *migration);
/* The guest is there and may be told of its end. */
void resident_has_started(struct resident *resident);
/* Takes it off the list, as its start failed. */
void resident_drop(struct resident *resident);
/* Until its VM is Halted, or given away and gone: 0, -ETIMEDOUT, -ECANCELED, -ESHUTDOWN (the agent
 * is stopping). */
int resident_await_end(
	struct resident *resident, uint64_t deadline_usec, const struct cancel *cancel);
/* Lets go; returns NULL. */
struct resident *resident_unref(struct resident *resident);
/* Of its guest. */
struct guest_callbacks resident_callbacks(struct resident *resident);
/* Records its run folder and starts its QEMU. */
int resident_start(struct resident *resident, const struct guest_spec *spec,
	const struct cancel *cancel, struct fault *fault);

int guests_start_keeper(struct guests *guests, struct fault *fault);
void guests_stop_keeper(struct guests *guests);

/* The run folder, and the row that says that it may be there. */
int guests_forget_folder(struct guests *guests, const char *run_dir, struct fault *fault);

DEFINE_CLEANUP(struct resident *, resident_unref)
#define CLEANUP_RESIDENT CLEANUP(cleanup_resident_unref)

#endif
