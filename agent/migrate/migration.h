/* SPDX-License-Identifier: Apache-2.0 */
/* One migration of this host, either role: its stored row, its state and who waits for it.
 *
 * The document is the part of the row that the roles define (sender.c, receiver.c). It is read and
 * changed under the lock, by migration_get_* and migration_change; a state moves only by
 * migration_post, which stores before it returns. */
#ifndef FERRY_AGENT_MIGRATE_MIGRATION_H
#define FERRY_AGENT_MIGRATE_MIGRATION_H

#include "agent/copy/copier.h"
#include "agent/migrate/fsm.h"
#include "agent/migrate/supervisor.h"
#include "target/tgt.h"

#include <pthread.h>

/* Figures of one disk that other threads read while it is copied. */
struct migration_disk {
	struct copy_progress copy;    /* of this run of the daemon */
	_Atomic uint64_t done_before; /* of its allocated bytes, by earlier runs */
	_Atomic uint64_t sent_before; /* bytes */
	_Atomic uint64_t compared_before;
	_Atomic uint64_t same_before;
	_Atomic uint64_t started_usec; /* 0: not yet */
	_Atomic uint64_t ended_usec;   /* 0: not yet */
	bool unsure; /* what was sent last may be there: the sender's thread's (resume.h) */
	struct salvage *salvage; /* of a move with on_read_error=zero: the sender's thread's */
};

/* Figures of a guest that is moved while it runs. */
struct migration_figures {
	_Atomic uint64_t n_rounds;
	_Atomic uint64_t left_bytes; /* dirty when last looked */
	_Atomic uint64_t dirty_bytes_per_sec;
	_Atomic uint64_t copy_bytes_per_sec;
	_Atomic uint64_t predicted_usec;         /* of the pause; UINT64_MAX: unknown */
	_Atomic uint64_t throttle_bytes_per_sec; /* 0: none */
	_Atomic uint64_t throttled_usec;         /* since when; 0: not now */
	_Atomic uint64_t memory_total;
	_Atomic uint64_t memory_sent;
};

struct migration {
	const struct supervisor_params *params;
	char *uuid;
	enum migration_role role;

	pthread_mutex_t lock; /* protects what follows, up to the next comment line */
	pthread_cond_t changed;
	enum migration_state state;
	struct value *document;
	unsigned n_refs;
	bool storing;             /* a new state or document is being stored */
	bool deciding;            /* receiver: the commit is being decided; a cancel waits for it */
	bool busy;                /* an operation of migration_enter is under way */
	bool cancel_requested;    /* by a person, as opposed to the daemon stopping */
	uint64_t last_heard_usec; /* receiver: of the sender */
	uint64_t peer_heard_usec; /* sender: of the receiver */
	int64_t silent_since;     /* wall seconds: the peer is silent; 0: it is not */

	struct cancel
		*cancel; /* requested by a cancel, by the daemon's stop, by a peer that gave up */
	struct cancel *stop;    /* requested by the daemon's stop only */
	struct cancel *resolve; /* requested by an operator's word on the decision, and by the
				   daemon's stop */
	int nudge_fd;           /* readable: an operator wants it to try again now */
	struct cancel
		*ended; /* requested when the outcome is known: a sticky event for who waits */

	/* Sender: one per disk of the plan, made with the object. */
	struct migration_disk *disks;
	size_t n_disks;
	size_t n_own_disks; /* the first of them: the VM's own; nobody writes to its snapshots' */
	struct rate_limit *rate;
	struct migration_figures figures;
	_Atomic bool forgotten; /* somebody said that the destination is gone for ever */
	_Atomic bool quiet;     /* the guest is paused: nothing is reported now */
	bool resumed;           /* by this agent, from a stored state: its own thread's */
	bool settled;           /* what was in doubt is compared (resume.h): its own thread's */
	struct live *live;      /* its own thread's; NULL: the VM is halted, or not looked at yet */

	/* Receiver: only inside migration_enter. Sender: exports only, its own thread. */
	struct tgt *tgt;
	struct value *exports; /* how to log in to the disks, with secrets; never stored */
	char *door;            /* of the guest's memory, while it is open */
	char *disk_door;       /* that leads to tgt, while it is open */
	bool still_settled;    /* the disks that no guest writes to are sealed already */
	uint64_t sealed_usec;  /* live: by this agent; 0: not yet */
	uint64_t resumed_usec; /* when the guest was told to run here; 0: not by this agent */

	_Atomic uint64_t secured_usec; /* when other hosts were asked last (safeguard.h) */

	/* The supervisor's. */
	struct migration *next;
	pthread_t thread;
	bool has_thread;
};

/* A new object for the row, whose document it takes over. One reference. */
struct migration *migration_new(const struct supervisor_params *params, struct migration_row *row);
struct migration *migration_ref(struct migration *migration);
struct migration *migration_unref(struct migration *migration);

/* Applies the event: checks the table, stores the new state and the document, tells the log, the
 * `migration` object of the pool and whoever waits. -EINVAL (logged) when the table has no such
 * row; -ECANCELED when a cancel was requested before and the event would leave the last state that
 * can be cancelled. */
int migration_post(struct migration *migration, enum migration_event event, struct fault *fault);

enum migration_state migration_state(struct migration *migration);

/* The member of the document, copied; the fallback or NULL when absent. The caller frees. */
char *migration_get_string(struct migration *migration, const char *name);
struct value *migration_get(struct migration *migration, const char *name);
/* Sets a member of the document (taken over) in memory; migration_save or the next move stores it.
 */
void migration_set(struct migration *migration, const char *name, struct value *value);
void migration_unset(struct migration *migration, const char *name);
int migration_save(struct migration *migration, struct fault *fault);

/* Keeps the first error in the document: code and parameters. */
void migration_set_error(struct migration *migration, const struct fault *fault);
void migration_get_error(struct migration *migration, struct fault *ret_fault);

/* A fault as XenAPI's error_info, and back: an array of the code and the parameters. */
struct value *fault_to_list(const struct fault *fault);
void fault_from_list(const struct value *list, struct fault *ret_fault);

/* "Not now; ask again": OTHER_OPERATION_IN_PROGRESS ["migration", uuid, "", ""]. Returns error. */
int migration_busy(const char *uuid, int error, struct fault *fault);

/* Operations of a receiver exclude each other; -ETIMEDOUT with that fault when another one lasts
 * longer than that. */
int migration_enter(struct migration *migration, unsigned timeout_sec, struct fault *fault);
void migration_leave(struct migration *migration);

/* Around the decision to commit: in between, a request to cancel waits for what comes out. One that
 * was accepted before still counts. */
void migration_decide_begin(struct migration *migration);
void migration_decide_end(struct migration *migration);

/* Asks it to stop; false when it can no longer be cancelled. A request that is accepted is stored:
 * it holds after a crash too. */
bool migration_request_cancel(struct migration *migration, const char *who);
/* The daemon stops: threads leave the migration where it is. */
void migration_request_stop(struct migration *migration);
bool migration_cancel_requested(struct migration *migration);

DEFINE_CLEANUP(struct migration *, migration_unref)
#define CLEANUP_MIGRATION CLEANUP(cleanup_migration_unref)

#endif
