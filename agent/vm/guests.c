/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/guests.h"

#include "agent/vm/guest_record.h"
#include "agent/vm/guest_state.h"
#include "agent/vm/guests_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define SHUTDOWN_USEC (120 * USEC_PER_SEC)
/* A guest that still boots does not see the button; one that shuts down ignores it. */
#define PRESS_USEC (10 * USEC_PER_SEC)
#define END_USEC   (20 * USEC_PER_SEC)

/* --- Life ---------------------------------------------------------------------------------------
 */

int guests_new(const struct guests_params *params, struct guests **ret_guests, struct fault *fault)
{
	char *folder CLEANUP_FREE = xasprintf("%s/guests", params->run_dir);
	int r = io_ensure_dir(folder, 0700);

	if (r < 0)
		return fault_errno(fault, r, "cannot make %s", folder);
	struct guests *guests = xcalloc(1, sizeof(*guests));
	pthread_mutex_init(&guests->lock, NULL);
	pthread_mutex_init(&guests->asking, NULL);
	pthread_cond_init(&guests->change, NULL);
	guests->storage = params->storage;
	guests->pool = params->storage->pool;
	guests->machines = xasprintf("%s.machines", folder);
	unlink(guests->machines); /* an agent that was killed over it left it */
	guests->folder = TAKE_PTR(folder);
	guests->program = xstrdup(params->program);
	guests->is_doubtful = params->is_doubtful;
	guests->shutdown_usec = params->shutdown_usec ? params->shutdown_usec : SHUTDOWN_USEC;
	guests->memory = params->memory;
	guests->closing = cancel_new();
	guests->next_domid = 1;
	*ret_guests = guests;
	return 0;
}

void guests_close(struct guests *guests)
{
	cancel_request(guests->closing, "the agent is stopping");
}

struct guests *guests_free(struct guests *guests)
{
	if (!guests)
		return NULL;
	guests_close(guests);
	guests_stop_keeper(guests);
	while (guests->first)
		resident_drop(guests->first);
	cancel_free(guests->closing);
	pthread_cond_destroy(&guests->change);
	pthread_mutex_destroy(&guests->lock);
	pthread_mutex_destroy(&guests->asking);
	free(guests->machines);
	free(guests->program);
	free(guests->folder);
	free(guests);
	return NULL;
}

/* --- Start --------------------------------------------------------------------------------------
 */

static int store_started(struct resident *resident, bool is_paused, struct fault *fault)
{
	struct guests *guests = resident->guests;
	char *console CLEANUP_FREE = guest_file(resident->run_dir, GUEST_CONSOLE);
	const struct guest_running running = {
		.vm = resident->vm,
		.host_ref = guests->storage->host_ref,
		.console_path = console,
		.domid = guests_take_domid(guests),
		.is_paused = is_paused,
	};

	return guest_state_started(guests->pool, &running, fault);
}

/* The VM has its disks already. */
static int launch(struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;
	struct resident *resident CLEANUP_RESIDENT = NULL;
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	int r = guest_record_read(guests->storage, request->vm, &spec, fault);

	if (r < 0)
		return r;
	spec.run_dir = xasprintf("%s/%s", guests->folder, spec.uuid);
	spec.paused = request->start_paused;
	r = resident_add(guests, request->vm, NULL, &spec, &resident, fault);
	if (r < 0)
		return r;
	r = resident_start(resident, &spec, request->cancel, fault);
	if (r == 0)
		r = store_started(resident, request->start_paused, fault);
	if (r == 0) {
		resident_has_started(resident);
		return 0;
	}
	if (resident->guest)
		guest_kill(resident->guest, NULL);
	if (guests_forget_folder(guests, resident->run_dir, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_warn("guest.leftover", "error=\"%s\"", text);
	}
	resident_drop(resident);
	return r;
}

static int start(struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	int r = launch(guests, request, fault);

	if (r == -ECANCELED)
		fault_set(fault, r, "TASK_CANCELLED", request->key, NULL);
	if (r < 0 && guest_state_halted(
			     guests->pool, request->vm, guests->storage->host_ref, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_error("guest.state_not_stored", "vm=%s error=\"%s\"", request->vm, text);
	}
	return r;
}

/* --- End ----------------------------------------------------------------------------------------
 */

static int find(struct guests *guests, const struct guests_request *request,
	struct resident **ret_resident, struct fault *fault)
{
	*ret_resident = resident_find(guests, request->vm);
	if (*ret_resident)
		return 0;
	/* It ended after the operation was allowed. */
	return fault_set(
		fault, -ESRCH, "VM_BAD_POWER_STATE", request->vm, "running", "halted", NULL);
}

/* Presses the button until the guest has ended. */
static int ask_to_end(struct resident *resident, const struct cancel *cancel, struct fault *fault)
{
	uint64_t deadline = clock_deadline(resident->guests->shutdown_usec);
	int r;

	do {
		r = guest_powerdown(resident->guest, fault);
		/* The answer is lost when it ends at that moment. */
		if (r < 0 && guest_is_alive(resident->guest))
			return r;
		r = resident_await_end(resident, MIN(deadline, clock_deadline(PRESS_USEC)), cancel);
	} while (r == -ETIMEDOUT && clock_now_usec() < deadline);
	fault_clear(fault);
	return r;
}

static int clean_shutdown(
	struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = NULL;
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = find(guests, request, &resident, fault);

	if (r == 0)
		r = ask_to_end(resident, request->cancel, &why);
	if (why.code && fault)
		fault_move(fault, &why);
	else if (r == -ETIMEDOUT)
		fault_set(fault, r, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", request->vm, NULL);
	else if (r == -ECANCELED)
		fault_set(fault, r, "TASK_CANCELLED", request->key, NULL);
	else if (r == -ESHUTDOWN)
		fault_text(fault, r,
			"This host's agent is stopping; the guest goes on shutting down, or not");
	return r;
}

static int hard_shutdown(
	struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = NULL;
	int r = find(guests, request, &resident, fault);

	if (r == 0)
		r = guest_kill(resident->guest, fault);
	if (r < 0)
		return r;
	r = resident_await_end(resident, clock_deadline(END_USEC), NULL);
	return r == 0 ? 0
		      : fault_errno(fault, r,
				"The guest has ended, but its VM is not stored as halted yet");
}

/* --- Between ------------------------------------------------------------------------------------
 */

static int pause_guest(
	struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = NULL;
	int r = find(guests, request, &resident, fault);

	if (r == 0)
		r = guest_pause(resident->guest, fault);
	return r < 0 ? r
		     : guest_state_set_paused(
			       guests->pool, request->vm, guests->storage->host_ref, true, fault);
}

static int unpause_guest(
	struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = NULL;
	int r = find(guests, request, &resident, fault);

	if (r == 0)
		r = guest_unpause(resident->guest, fault);
	return r < 0 ? r
		     : guest_state_set_paused(
			       guests->pool, request->vm, guests->storage->host_ref, false, fault);
}

static int hard_reboot(
	struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = NULL;
	int r = find(guests, request, &resident, fault);

	if (r == 0)
		r = guest_reset(resident->guest, fault);
	if (r == 0)
		r = guest_unpause(resident->guest, fault);
	return r < 0 ? r
		     : guest_state_set_paused(
			       guests->pool, request->vm, guests->storage->host_ref, false, fault);
}

/* A new process: what has changed of the VM's fields meanwhile holds. */
static int clean_reboot(
	struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	int r = clean_shutdown(guests, request, fault);

	if (r == 0)
		r = guest_state_attach(guests->pool, request->vm, request->operation, fault);
	return r < 0 ? r : start(guests, request, fault);
}

static const struct work {
	const char *operation;
	int (*work)(
		struct guests *guests, const struct guests_request *request, struct fault *fault);
	bool attach;
} works[] = {
	{"start", start, .attach = true},
	{"start_on", start, .attach = true},
	{"pause", pause_guest, .attach = false},
	{"unpause", unpause_guest, .attach = false},
	{"clean_shutdown", clean_shutdown, .attach = false},
	{"hard_shutdown", hard_shutdown, .attach = false},
	{"clean_reboot", clean_reboot, .attach = false},
	{"hard_reboot", hard_reboot, .attach = false},
};

int guests_do(struct guests *guests, const struct guests_request *request, struct fault *fault)
{
	const struct work *work = works;
	struct fault left CLEANUP_FAULT = FAULT_INIT;

	while (strcmp(work->operation, request->operation) != 0)
		work++;
	const struct guest_begin begin = {
		.vm = request->vm,
		.operation = request->operation,
		.key = request->key,
		.attach = work->attach,
		.host_ref = guests->storage->host_ref,
	};
	int r = guest_state_begin(guests->pool, &begin, fault);
	if (r < 0)
		return r;
	r = work->work(guests, request, fault);
	if (guest_state_end(guests->pool, request->vm, request->key, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_error("guest.mark_not_removed", "vm=%s error=\"%s\"", request->vm, text);
	}
	return r;
}
