/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that leave this host. */
#include "agent/vm/guests_internal.h"
#include "base/alloc.h"
#include "base/clock.h"

#define END_USEC (20 * USEC_PER_SEC)

/* --- Who is held --------------------------------------------------------------------------------
 */

struct resident *guests_hold(struct guests *guests, const char *vm)
{
	struct resident *resident = resident_find(guests, vm);

	return resident && guest_is_alive(resident->guest) ? resident : resident_unref(resident);
}

struct resident *guests_release(struct resident *resident)
{
	if (!resident)
		return NULL;
	pthread_mutex_lock(&resident->guests->lock);
	resident->has_news = true;
	pthread_cond_signal(&resident->guests->change);
	pthread_mutex_unlock(&resident->guests->lock);
	return resident_unref(resident);
}

struct guest *resident_guest(struct resident *resident)
{
	return resident->guest;
}

const char *resident_run_dir(const struct resident *resident)
{
	return resident->run_dir;
}

/* --- The source, after the commit ---------------------------------------------------------------
 */

static int end_resident(struct resident *resident, struct fault *fault)
{
	pthread_mutex_lock(&resident->guests->lock);
	resident->is_given_away = true;
	pthread_mutex_unlock(&resident->guests->lock);
	int r = guest_kill(resident->guest, fault);
	if (r < 0)
		return r;
	r = resident_await_end(resident, clock_deadline(END_USEC), NULL);
	return r == 0 ? 0
		      : fault_errno(fault, r,
				"The guest has ended, but its folder %s is still there",
				resident->run_dir);
}

/* One that no list has: its VM was Halted, or gone, when the agent started. */
static int end_process(
	struct guests *guests, const char *uuid, const char *run_dir, struct fault *fault)
{
	static const struct guest_callbacks nobody;
	struct guest *guest CLEANUP_GUEST = NULL;
	int r = guest_find(uuid, run_dir, &nobody, &guest, fault);

	if (r > 0)
		r = guest_kill(guest, fault);
	return r < 0 ? r : guests_forget_folder(guests, run_dir, fault);
}

int guests_end(struct guests *guests, const char *vm, const char *vm_uuid, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = resident_find(guests, vm);
	char *run_dir CLEANUP_FREE = NULL;

	if (resident)
		return end_resident(resident, fault);
	run_dir = xasprintf("%s/%s", guests->folder, vm_uuid);
	return end_process(guests, vm_uuid, run_dir, fault);
}
