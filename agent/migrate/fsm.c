/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a VM whose guest runs, and of a halted one, which skips CONVERGING and HANDOVER:
 *
 *   sender    NEW > PREPARING > COPYING > CONVERGING > SWITCHING > HANDOVER > COMMITTING >
 * FINISHING > DONE receiver        ALLOCATING > RECEIVING > SEALED > COMMITTED > DONE both before
 * the commit: > ABORTING > CANCELLED | FAILED
 */
#include "agent/migrate/fsm.h"

#include "base/cleanup.h"

#define SENDER(from, event, to, sentence)                                                          \
	{                                                                                          \
		ROLE_SENDER, STATE_##from, EVENT_##event, STATE_##to, sentence                     \
	}
#define RECEIVER(from, event, to, sentence)                                                        \
	{                                                                                          \
		ROLE_RECEIVER, STATE_##from, EVENT_##event, STATE_##to, sentence                   \
	}

const struct fsm_row fsm_rows[] = {
	SENDER(NEW, STARTED, PREPARING,
		"the VM is locked; the destination is asked to make the disks"),
	SENDER(PREPARING, PREPARED, COPYING,
		"every disk is exported to this host; the log is being copied empty"),
	SENDER(COPYING, COPIED, SWITCHING,
		"the content was compared equal; the destination is asked to seal it"),
	SENDER(COPYING, BULK_COPIED, CONVERGING,
		"all was compared equal once; what the guest writes is sent after it, then its "
		"memory"),
	SENDER(CONVERGING, STOPPED, SWITCHING,
		"the guest is paused; the last of its writes are sent, then the destination seals"),
	SENDER(SWITCHING, RESUMED, CONVERGING,
		"the guest runs on here; the destination has sealed nothing"),
	SENDER(SWITCHING, SEALED_PAUSED, HANDOVER,
		"the intent is recorded; QEMU hands the guest over and must not be told to cancel"),
	SENDER(HANDOVER, HANDED_OVER, COMMITTING,
		"the intent is recorded; the destination is asked for the commit until it answers"),
	SENDER(SWITCHING, SEALED, COMMITTING,
		"the intent is recorded; the destination is asked for the commit until it answers"),
	SENDER(COMMITTING, COMMITTED, FINISHING,
		"the destination owns the VM; the source forgets it"),
	SENDER(COMMITTING, REFUSED, ABORTING,
		"the destination says, durably, that it does not own the VM"),
	SENDER(COMMITTING, ASSUMED_COMMITTED, FINISHING,
		"an operator says that the destination owns the VM; the source forgets it, but "
		"keeps its disks"),
	SENDER(COMMITTING, ASSUMED_ABORTED, ABORTING,
		"an operator says that the destination does not own the VM; it goes on here"),
	SENDER(FINISHING, FINISHED, DONE,
		"the VM is at the destination; nothing of the move is left here"),
	SENDER(NEW, CANCEL, ABORTING,
		"cancelled; the source is untouched, the destination is told"),
	SENDER(NEW, FAILED, ABORTING, "failed; the source is untouched, the destination is told"),
	SENDER(PREPARING, CANCEL, ABORTING,
		"cancelled; the source is untouched, the destination is told"),
	SENDER(PREPARING, FAILED, ABORTING,
		"failed; the source is untouched, the destination is told"),
	SENDER(COPYING, CANCEL, ABORTING,
		"cancelled; the source is untouched, the destination is told"),
	SENDER(COPYING, FAILED, ABORTING,
		"failed; the source is untouched, the destination is told"),
	SENDER(CONVERGING, CANCEL, ABORTING,
		"cancelled; the guest runs on here, the destination is told"),
	SENDER(CONVERGING, FAILED, ABORTING,
		"failed; the guest runs on here, the destination is told"),
	SENDER(SWITCHING, CANCEL, ABORTING,
		"cancelled; the source is untouched, the destination is told"),
	SENDER(SWITCHING, FAILED, ABORTING,
		"failed; the source is untouched, the destination is told"),
	SENDER(HANDOVER, CANCEL, ABORTING,
		"cancelled; the destination's guest is ended, then the one here runs on"),
	SENDER(HANDOVER, FAILED, ABORTING,
		"failed; the destination's guest is ended, then the one here runs on"),
	SENDER(ABORTING, UNDONE, FAILED,
		"the VM is at the source as before; the cause is in the record"),
	SENDER(ABORTING, UNDONE_CANCELLED, CANCELLED, "the VM is at the source as before"),

	RECEIVER(ALLOCATING, PREPARED, RECEIVING,
		"the disks are made; their exports take data from the sender"),
	RECEIVER(RECEIVING, SEALED, SEALED,
		"the exports are withdrawn and the disks settled; nothing can write them"),
	RECEIVER(SEALED, COMMITTED, COMMITTED,
		"the VM is in this pool's database and belongs to it"),
	RECEIVER(COMMITTED, FINISHED, DONE, "nothing of the move is left here but the VM"),
	RECEIVER(ALLOCATING, CANCEL, ABORTING, "cancelled; disks and exports are being removed"),
	RECEIVER(ALLOCATING, FAILED, ABORTING, "failed; disks and exports are being removed"),
	RECEIVER(ALLOCATING, ABANDONED, ABORTING,
		"the sender is gone; disks and exports are being removed"),
	RECEIVER(RECEIVING, CANCEL, ABORTING, "cancelled; disks and exports are being removed"),
	RECEIVER(RECEIVING, FAILED, ABORTING, "failed; disks and exports are being removed"),
	RECEIVER(RECEIVING, ABANDONED, ABORTING,
		"the sender is gone; disks and exports are being removed"),
	RECEIVER(SEALED, CANCEL, ABORTING, "cancelled; the disks are being removed"),
	RECEIVER(SEALED, FAILED, ABORTING, "failed; the disks are being removed"),
	RECEIVER(ABORTING, UNDONE, FAILED, "nothing of the move is left here"),
	RECEIVER(ABORTING, UNDONE_CANCELLED, CANCELLED, "nothing of the move is left here"),
};
const size_t fsm_n_rows = ARRAY_SIZE(fsm_rows);

const char *migration_event_name(enum migration_event event)
{
	static const char *const names[N_EVENTS] = {
		[EVENT_STARTED] = "started",
		[EVENT_PREPARED] = "prepared",
		[EVENT_COPIED] = "copied",
		[EVENT_BULK_COPIED] = "bulk-copied",
		[EVENT_STOPPED] = "stopped",
		[EVENT_RESUMED] = "resumed",
		[EVENT_SEALED] = "sealed",
		[EVENT_SEALED_PAUSED] = "sealed-paused",
		[EVENT_HANDED_OVER] = "handed-over",
		[EVENT_COMMITTED] = "committed",
		[EVENT_REFUSED] = "refused",
		[EVENT_ASSUMED_COMMITTED] = "assumed-committed",
		[EVENT_ASSUMED_ABORTED] = "assumed-aborted",
		[EVENT_FINISHED] = "finished",
		[EVENT_CANCEL] = "cancel",
		[EVENT_FAILED] = "failed",
		[EVENT_ABANDONED] = "abandoned",
		[EVENT_UNDONE] = "undone",
		[EVENT_UNDONE_CANCELLED] = "undone-cancelled",
	};

	return names[event];
}

const struct fsm_row *fsm_find(
	enum migration_role role, enum migration_state from, enum migration_event event)
{
	for (size_t i = 0; i < fsm_n_rows; i++)
		if (fsm_rows[i].role == role && fsm_rows[i].from == from &&
			fsm_rows[i].event == event)
			return &fsm_rows[i];
	return NULL;
}

bool fsm_is_final(enum migration_state state)
{
	return state == STATE_DONE || state == STATE_CANCELLED || state == STATE_FAILED;
}

bool fsm_is_cancellable(enum migration_role role, enum migration_state state)
{
	return fsm_find(role, state, EVENT_CANCEL);
}

void fsm_print_markdown(FILE *out)
{
	fputs("# States of a migration\n\n"
	      "Made from the table in `agent/migrate/fsm.c`; a test compares them.\n"
	      "A pair of state and event that has no line here is refused and logged.\n\n"
	      "| role | in state | event | next state | what is true then |\n"
	      "|---|---|---|---|---|\n",
		out);
	for (size_t i = 0; i < fsm_n_rows; i++)
		fprintf(out, "| %s | %s | %s | %s | %s |\n", migration_role_name(fsm_rows[i].role),
			migration_state_name(fsm_rows[i].from),
			migration_event_name(fsm_rows[i].event),
			migration_state_name(fsm_rows[i].to), fsm_rows[i].sentence);
}
