/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that leave this host, and that come to it. */
#include "agent/vm/guest_state.h"
#include "agent/vm/guests_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define END_USEC (20 * USEC_PER_SEC)

/* --- Who is held --------------------------------------------------------------------------------
 */

void guests_each(struct guests *guests, void (*fn)(void *arg, struct resident *resident), void *arg)
{
	struct resident **all = NULL;
	size_t n = 0;

	pthread_mutex_lock(&guests->lock);
	for (struct resident *at = guests->first; at; at = at->next) {
		if (at->is_starting || !at->guest)
			continue;
		all = xrealloc(all, n + 1, sizeof(struct resident *));
		at->n_refs++;
		all[n++] = at;
	}
	pthread_mutex_unlock(&guests->lock);
	for (size_t i = 0; i < n; i++) {
		fn(arg, all[i]);
		resident_unref(all[i]);
	}
	free(all);
}

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

/* --- Whatever the database says -----------------------------------------------------------------
 */

char *guests_running_console(struct guests *guests, const char *vm_uuid)
{
	static const struct guest_callbacks nobody;
	char *run_dir CLEANUP_FREE = xasprintf("%s/%s", guests->folder, vm_uuid);
	struct guest *guest CLEANUP_GUEST = NULL;
	bool is_running = false;

	if (guest_find(vm_uuid, run_dir, &nobody, &guest, NULL) <= 0 ||
		guest_is_running(guest, &is_running, NULL) < 0 || !is_running)
		return NULL;
	return guest_file(run_dir, GUEST_CONSOLE);
}

/* --- The destination, up to the commit ----------------------------------------------------------
 */

/* What the journal has of the migration's guests, whether their QEMU is known here or not. */
static int end_recorded(struct guests *guests, const char *migration, struct fault *fault)
{
	struct resource_row *rows = NULL;
	size_t n = 0;
	int r = resource_list(guests->storage->agent, migration, GUESTS_KIND, &rows, &n, fault);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = end_process(
			guests, value_find_string(rows[i].detail, "uuid", ""), rows[i].name, fault);
	for (size_t i = 0; i < n; i++)
		resource_row_clear(&rows[i]);
	free(rows);
	return r;
}

int guests_end_incoming(struct guests *guests, const char *migration, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = resident_find_incoming(guests, migration);

	if (resident) {
		int r = guest_kill(resident->guest, fault);
		if (r < 0)
			return r;
		resident_drop(resident);
	}
	return end_recorded(guests, migration, fault);
}

int guests_start_incoming(struct guests *guests, const char *migration, struct guest_spec *spec,
	const struct cancel *cancel, struct resident **ret_resident, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = NULL;
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	int r = guests_end_incoming(guests, migration, fault);

	if (r < 0)
		return r;
	free(spec->run_dir);
	spec->run_dir = xasprintf("%s/%s", guests->folder, spec->uuid);
	spec->incoming = true;
	r = resident_add(guests, NULL, migration, spec, &resident, fault);
	if (r < 0)
		return r;
	r = resident_start(resident, spec, cancel, fault);
	if (r == 0) {
		resident_has_started(resident);
		*ret_resident = TAKE_PTR(resident);
		return 0;
	}
	resident_drop(resident);
	if (guests_end_incoming(guests, migration, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_warn("guest.leftover", "error=\"%s\"", text);
	}
	return r;
}

struct resident *guests_find_incoming(struct guests *guests, const char *migration)
{
	struct resident *resident = resident_find_incoming(guests, migration);

	return resident && guest_is_alive(resident->guest) ? resident : resident_unref(resident);
}

char *guests_incoming_end(struct guests *guests, const char *migration)
{
	struct resident *resident CLEANUP_RESIDENT = resident_find_incoming(guests, migration);

	if (!resident || guest_is_alive(resident->guest))
		return NULL;
	SCOPE_LOCK(&guests->lock);
	return xstrdup(resident->end_reason ? resident->end_reason : "QEMU ended");
}

bool resident_has_memory(struct resident *resident)
{
	SCOPE_LOCK(&resident->guests->lock);
	return resident->has_memory;
}

static int check_paused(struct resident *resident, struct fault *fault)
{
	struct value *answer CLEANUP_VALUE = NULL;
	int r = guest_command(resident->guest, "query-status", NULL, NULL, &answer, fault);

	if (r < 0)
		return r;
	const char *status = value_find_string(answer, "status", "");
	return strcmp(status, "paused") == 0
		       ? 0
		       : fault_text(fault, -EINVAL,
				 "QEMU at the destination has the memory, but is \"%s\" and not "
				 "paused",
				 status);
}

int resident_await_memory(struct resident *resident, uint64_t deadline_usec,
	const struct cancel *cancel, struct fault *fault)
{
	struct pollfd fd = {.fd = cancel_fd(resident->waited), .events = POLLIN};
	int r = cancel_poll(cancel, &fd, 1, deadline_usec);

	if (r < 0)
		return fault_errno(fault, r, "waiting for the memory at the destination");
	if (!guest_is_alive(resident->guest))
		return fault_errno(fault, -ESRCH, "QEMU at the destination");
	if (!resident_has_memory(resident))
		return fault_text(fault, -ETIMEDOUT,
			"QEMU at the destination does not have the whole memory of the guest");
	return check_paused(resident, fault);
}

/* --- The destination, after the commit ----------------------------------------------------------
 */

static int make_halted(struct guests *guests, const char *vm, struct fault *fault)
{
	int r = guest_state_halted(guests->pool, vm, guests->storage->host_ref, fault);

	return r < 0 ? r
		     : fault_text(fault, -ESRCH,
			       "The VM belongs to this pool, but its QEMU ended before the guest "
			       "ran: it is halted, its disks are complete");
}

/* It is the VM's from now on: what happens to it happens to the VM. */
static bool adopt(struct resident *resident, const char *vm)
{
	struct guests *guests = resident->guests;
	SCOPE_LOCK(&guests->lock);

	if (!resident->vm) {
		resident->vm = xstrdup(vm);
		/* That it was stopped until now is no pause. */
		resident->is_paused = resident->has_news = false;
	}
	pthread_cond_signal(&guests->change);
	return resident->is_told_to_run;
}

/* Somebody may pause it from then on, so it is told once. */
static int tell_to_run(struct resident *resident, uint64_t *ret_resumed_usec, struct fault *fault)
{
	int r = guest_unpause(resident->guest, fault);

	if (r < 0)
		return r;
	if (ret_resumed_usec)
		*ret_resumed_usec = clock_now_usec();
	SCOPE_LOCK(&resident->guests->lock);
	resident->is_told_to_run = true;
	return 0;
}

/* The journal follows last: the guest runs meanwhile. */
static int settle_in(struct resident *resident, struct fault *fault)
{
	struct guests *guests = resident->guests;
	int r = resource_give(guests->storage->agent, GUESTS_KIND, resident->run_dir, "", fault);

	if (r < 0)
		return r;
	pthread_mutex_lock(&guests->lock);
	free(resident->migration);
	resident->migration = NULL;
	pthread_mutex_unlock(&guests->lock);
	log_info("guest.taken_over", "vm=%s pid=%d", resident->vm, (int)guest_pid(resident->guest));
	return 0;
}

int guests_take_over(struct guests *guests, const char *migration, const char *vm,
	uint64_t *ret_resumed_usec, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = resident_find_incoming(guests, migration);
	int r = 0;

	if (ret_resumed_usec)
		*ret_resumed_usec = 0;
	if (!resident) {
		resident = resident_find(guests, vm);
		return resident ? 0 : make_halted(guests, vm, fault);
	}
	if (!adopt(resident, vm))
		r = tell_to_run(resident, ret_resumed_usec, fault);
	if (r < 0 && !guest_is_alive(resident->guest)) {
		fault_clear(fault);
		return make_halted(guests, vm, fault);
	}
	return r < 0 ? r : settle_in(resident, fault);
}
