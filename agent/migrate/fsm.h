/* SPDX-License-Identifier: Apache-2.0 */
/* The one state machine: a table of (role, state, event) -> state. Pure; docs/states.md is made of
 * it. Requests (cancel) are events, never bits of a state. A pair that has no row is refused. */
#ifndef FERRY_AGENT_MIGRATE_FSM_H
#define FERRY_AGENT_MIGRATE_FSM_H

#include "schema/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum migration_event {
	EVENT_STARTED,           /* sender: the request was checked and stored */
	EVENT_PREPARED,          /* disks made and exported */
	EVENT_COPIED,            /* log empty, content compared equal */
	EVENT_BULK_COPIED,       /* the same, while the guest runs on and writes */
	EVENT_STOPPED,           /* the guest is paused, its memory all but handed over */
	EVENT_RESUMED,           /* the guest runs here again before anything was sealed */
	EVENT_SEALED,            /* exports withdrawn, disks settled */
	EVENT_SEALED_PAUSED,     /* the same, for a guest that is paused */
	EVENT_HANDED_OVER,       /* the destination's QEMU has all of the guest and waits */
	EVENT_COMMITTED,         /* the destination pool's database says so */
	EVENT_REFUSED,           /* it says, durably, that the migration is aborted */
	EVENT_ASSUMED_COMMITTED, /* an operator says so; the destination cannot be asked */
	EVENT_ASSUMED_ABORTED,   /* an operator says so */
	EVENT_FINISHED,          /* this side has forgotten what it kept for the migration */
	EVENT_CANCEL,            /* somebody asked to stop */
	EVENT_FAILED,            /* an error that cannot be mended by trying again */
	EVENT_ABANDONED,         /* receiver: the sender was not heard for the abandon time */
	EVENT_UNDONE,            /* nothing of the migration is left on this side; it failed */
	EVENT_UNDONE_CANCELLED,  /* the same after a cancel */
	N_EVENTS
};

struct fsm_row {
	enum migration_role role;
	enum migration_state from;
	enum migration_event event;
	enum migration_state to;
	const char *sentence; /* for operators: what is true once in `to` */
};

extern const struct fsm_row fsm_rows[];
extern const size_t fsm_n_rows;

const char *migration_event_name(enum migration_event event);

/* NULL: the event has no place in that state. */
const struct fsm_row *fsm_find(
	enum migration_role role, enum migration_state from, enum migration_event event);

bool fsm_is_final(enum migration_state state);
/* Whether a cancel is still an event of that state: before the commit. */
bool fsm_is_cancellable(enum migration_role role, enum migration_state state);

/* The table as Markdown: the content of docs/states.md. */
void fsm_print_markdown(FILE *out);

#endif
