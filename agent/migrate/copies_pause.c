/* SPDX-License-Identifier: Apache-2.0 */
/* The moment that a snapshot of a guest that runs holds. The guest is stopped, what it has written
 * is read into memory, and it goes on. A watchdog sees to it that it does, whatever becomes of this
 * process. */
#include "agent/migrate/copies_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>

/* More than that is not read into memory: it goes on, and is stopped again later. */
#define HOLD_BYTES (UINT64_C(64) << 20)
#define HOLD_USEC  (300 * USEC_PER_MSEC)
/* When it is stopped for so long its watchdog lets it run. */
#define PAUSE_USEC (800 * USEC_PER_MSEC)

/* --- What is held -------------------------------------------------------------------------------
 */

static void drop_last(struct copies_disk *disk)
{
	free(disk->last);
	disk->last = NULL;
	disk->n_last = 0;
}

/* -ETIMEDOUT: it is too much to hold the guest for. */
static int hold_rest(struct copies *copies, uint64_t deadline_usec, struct fault *fault)
{
	uint64_t bytes = 0;
	int r = dirty_check(copies->dirty, fault);

	if (r == 0)
		r = dirty_freeze(copies->dirty, fault);
	for (size_t i = 0; r == 0 && i < copies->n_files; i++) {
		struct copies_disk *disk = &copies->disks[i];
		if (!copies_guest_writes(copies, i))
			continue;
		drop_last(disk);
		r = dirty_list(copies->dirty, disk->number, &disk->last, &disk->n_last, fault);
		for (size_t j = 0; r == 0 && j < disk->n_last; j++)
			bytes += disk->last[j].length;
		if (r == 0 && bytes > HOLD_BYTES)
			r = fault_text(fault, -ETIMEDOUT,
				"the guest wrote %" PRIu64 " bytes at once", bytes);
		if (r == 0)
			r = file_copy_hold(
				disk->copy, disk->last, disk->n_last, deadline_usec, fault);
	}
	return r;
}

/* --- The pause ----------------------------------------------------------------------------------
 */

static int watch(struct copies *copies, struct fault *fault)
{
	char *uuid CLEANUP_FREE = NULL;
	int r = object_get_string(
		copies->params->storage->pool, "VM", copies->guest, "uuid", &uuid, fault);

	if (r < 0)
		return r;
	return watchdog_start(
		&(struct watchdog_params){
			.program = copies->params->watchdog,
			.run_dir = resident_run_dir(copies->resident),
			.vm_uuid = uuid,
			.budget_usec = PAUSE_USEC,
			.guards_pause = true,
		},
		&copies->watchdog, fault);
}

/* Stored before: whoever finds it stopped lets it run again. */
static int stop(struct copies *copies, uint64_t *ret_begun_usec, struct fault *fault)
{
	int r = watch(copies, fault);

	if (r < 0)
		return r;
	copies->stops = true;
	r = copies_store(copies, fault);
	*ret_begun_usec = clock_now_usec();
	return r < 0 ? r : guest_pause(resident_guest(copies->resident), fault);
}

/* The watchdog goes after the guest does. It may have let it run before, so that what was read is
 * of no one moment. */
static int go_on(struct copies *copies, uint64_t begun_usec, int *held, struct fault *fault)
{
	struct fault *cause = *held < 0 ? NULL : fault;
	int r = guest_unpause(resident_guest(copies->resident), cause);

	if (r < 0)
		return r;
	log_info("COPY-INSTANT", "copy=%s pause_usec=%" PRIu64 " result=%d", copies->uuid,
		clock_now_usec() - begun_usec, *held);
	copies->stops = false;
	if (watchdog_disarm(copies->watchdog, cause) < 0 && *held == 0)
		*held = -ETIMEDOUT;
	copies->watchdog = watchdog_stop(copies->watchdog);
	return copies_store(copies, *held < 0 ? NULL : fault);
}

static int hold_stopped(struct copies *copies, struct fault *fault)
{
	uint64_t begun_usec = 0;
	int r = stop(copies, &begun_usec, fault);

	if (r < 0)
		return r;
	int held = hold_rest(copies, begun_usec + HOLD_USEC, fault);
	copies->instant_sec = clock_wall_sec();
	r = go_on(copies, begun_usec, &held, fault);
	/* The caller tries again only with a guest that runs. */
	if (r == -ETIMEDOUT)
		r = -EIO;
	return r < 0 ? r : held;
}

int copies_pause(struct copies *copies, struct fault *fault)
{
	bool is_running = false;
	int r = guest_is_running(resident_guest(copies->resident), &is_running, fault);

	if (r < 0 || is_running)
		return r < 0 ? r : hold_stopped(copies, fault);
	r = hold_rest(copies, clock_deadline(HOLD_USEC), fault);
	copies->instant_sec = clock_wall_sec();
	return r;
}
