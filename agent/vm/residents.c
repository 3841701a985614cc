/* SPDX-License-Identifier: Apache-2.0 */
/* The list of what runs, and the thread that makes the database follow it. */
#include "agent/vm/guest_state.h"
#include "agent/vm/guests_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define RETRY_USEC USEC_PER_SEC

/* --- The list -----------------------------------------------------------------------------------
 */

/* With the lock held. What a guest was promised and has not touched yet looks free, but is not. */
static uint64_t available_memory(struct guests *guests)
{
	int64_t total, free_bytes;

	guests->memory(&total, &free_bytes);
	uint64_t available = free_bytes > 0 ? (uint64_t)free_bytes : 0;
	for (const struct resident *at = guests->first; at; at = at->next) {
		if (at->has_ended)
			continue;
		uint64_t used = at->guest ? guest_resident_bytes(at->guest) : 0;
		uint64_t due = at->memory_bytes > used ? at->memory_bytes - used : 0;
		available -= MIN(available, due);
	}
	return available;
}

/* With the lock held. */
static int check_memory(struct guests *guests, const struct guest_spec *spec, struct fault *fault)
{
	uint64_t available = available_memory(guests);

	if (spec->memory_bytes <= available)
		return 0;
	char *needed CLEANUP_FREE = xasprintf("%" PRIu64, spec->memory_bytes);
	char *there CLEANUP_FREE = xasprintf("%" PRIu64, available);
	return fault_set(fault, -ENOMEM, "HOST_NOT_ENOUGH_FREE_MEMORY", needed, there, NULL);
}

static int check_program(const struct guests *guests, struct fault *fault)
{
	if (access(guests->program, X_OK) == 0)
		return 0;
	int error = -errno;
	return fault_errno(fault, error, "This host cannot run guests: %s", guests->program);
}

int guests_check_machine(struct guests *guests, const char *machine, struct fault *fault)
{
	int r = check_program(guests, fault);

	if (r < 0)
		return r;
	SCOPE_LOCK(&guests->asking);
	return guest_check_machine(guests->program, guests->machines, machine, fault);
}

int guests_check_room(struct guests *guests, const struct guest_spec *spec, struct fault *fault)
{
	int r = check_program(guests, fault);

	if (r < 0)
		return r;
	SCOPE_LOCK(&guests->lock);
	return check_memory(guests, spec, fault);
}

int resident_add(struct guests *guests, const char *vm, const char *migration,
	const struct guest_spec *spec, struct resident **ret_resident, struct fault *fault)
{
	SCOPE_LOCK(&guests->lock);
	int r = check_memory(guests, spec, fault);

	if (r < 0)
		return r;
	struct resident *resident = xcalloc(1, sizeof(*resident));
	*resident = (struct resident){
		.guests = guests,
		.vm = xstrdup(vm),
		.migration = xstrdup(migration),
		.run_dir = xstrdup(spec->run_dir),
		.memory_bytes = spec->memory_bytes,
		.ended = cancel_new(),
		.waited = cancel_new(),
		.next = guests->first,
		.n_refs = 2,
		.is_starting = true,
		.is_paused = spec->paused,
	};
	guests->first = resident;
	*ret_resident = resident;
	return 0;
}

static bool is_text(const char *text, const char *wanted)
{
	return text && strcmp(text, wanted) == 0;
}

struct resident *resident_find(struct guests *guests, const char *vm)
{
	SCOPE_LOCK(&guests->lock);
	struct resident *resident = guests->first;

	while (resident && (resident->is_starting || !is_text(resident->vm, vm)))
		resident = resident->next;
	if (resident)
		resident->n_refs++;
	return resident;
}

struct resident *resident_find_incoming(struct guests *guests, const char *migration)
{
	SCOPE_LOCK(&guests->lock);
	struct resident *resident = guests->first;

	while (resident && (resident->is_starting || !is_text(resident->migration, migration)))
		resident = resident->next;
	if (resident)
		resident->n_refs++;
	return resident;
}

struct resident *resident_unref(struct resident *resident)
{
	if (!resident)
		return NULL;
	pthread_mutex_lock(&resident->guests->lock);
	bool is_last = --resident->n_refs == 0;
	pthread_mutex_unlock(&resident->guests->lock);
	if (!is_last)
		return NULL;
	guest_free(resident->guest);
	cancel_free(resident->waited);
	cancel_free(resident->ended);
	free(resident->run_dir);
	free(resident->end_reason);
	free(resident->migration);
	free(resident->vm);
	free(resident);
	return NULL;
}

/* Recorded before it is made. */
int resident_start(struct resident *resident, const struct guest_spec *spec,
	const struct cancel *cancel, struct fault *fault)
{
	struct guests *guests = resident->guests;
	struct value *detail CLEANUP_VALUE = value_new_struct();
	const struct guest_callbacks callbacks = resident_callbacks(resident);
	const char *owner = resident->migration ? resident->migration : "";
	struct guest *guest = NULL;

	value_set_string(detail, "uuid", spec->uuid);
	value_set_int(detail, "memory", (int64_t)spec->memory_bytes);
	int r = resource_record(
		guests->storage->agent, owner, GUESTS_KIND, resident->run_dir, detail, NULL, fault);
	if (r == 0)
		r = guest_start(spec, guests->program, &callbacks, cancel, &guest, fault);
	SCOPE_LOCK(&guests->lock);
	resident->guest = guest;
	return r;
}

void resident_has_started(struct resident *resident)
{
	SCOPE_LOCK(&resident->guests->lock);
	resident->is_starting = false;
	pthread_cond_signal(&resident->guests->change);
}

void resident_drop(struct resident *resident)
{
	struct guests *guests = resident->guests;

	pthread_mutex_lock(&guests->lock);
	struct resident **at = &guests->first;
	while (*at != resident)
		at = &(*at)->next;
	*at = resident->next;
	pthread_mutex_unlock(&guests->lock);
	resident_unref(resident);
}

int resident_await_end(
	struct resident *resident, uint64_t deadline_usec, const struct cancel *cancel)
{
	struct pollfd fds[] = {
		{.fd = cancel_fd(resident->ended), .events = POLLIN},
		{.fd = cancel_fd(resident->guests->closing), .events = POLLIN},
	};
	int r = cancel_poll(cancel, fds, ARRAY_SIZE(fds), deadline_usec);

	if (r < 0)
		return r;
	if (fds[0].revents)
		return 0;
	return r == 0 ? -ETIMEDOUT : -ESHUTDOWN;
}

int64_t guests_take_domid(struct guests *guests)
{
	SCOPE_LOCK(&guests->lock);
	return guests->next_domid++;
}

int guests_forget_folder(struct guests *guests, const char *run_dir, struct fault *fault)
{
	int r = guest_forget_run_dir(run_dir);

	if (r < 0)
		return fault_errno(fault, r, "cannot remove %s", run_dir);
	return resource_forget_name(guests->storage->agent, GUESTS_KIND, run_dir, fault);
}

/* --- What guests tell ---------------------------------------------------------------------------
 */

static void guest_has_ended(void *arg, const char *reason)
{
	struct resident *resident = arg;
	SCOPE_LOCK(&resident->guests->lock);

	free(resident->end_reason);
	resident->end_reason = xstrdup(reason);
	cancel_request(resident->waited, "its process has ended");
	resident->has_ended = true;
	pthread_cond_signal(&resident->guests->change);
}

/* QEMU stops a guest by itself too, as when its disk is full. */
static void guest_event(void *arg, const char *name, const struct value *data)
{
	struct resident *resident = arg;
	bool stops = strcmp(name, "STOP") == 0;
	SCOPE_LOCK(&resident->guests->lock);

	if (strcmp(name, "MIGRATION") == 0 &&
		strcmp(value_find_string(data, "status", ""), "completed") == 0) {
		resident->has_memory = true;
		cancel_request(resident->waited, "it has the memory");
	}
	/* The STOP that belongs to an end is no pause. */
	if (strcmp(name, "SHUTDOWN") == 0)
		resident->is_shutting_down = true;
	if (resident->is_shutting_down || (!stops && strcmp(name, "RESUME") != 0))
		return;
	resident->is_paused = stops;
	resident->has_news = true;
	pthread_cond_signal(&resident->guests->change);
}

struct guest_callbacks resident_callbacks(struct resident *resident)
{
	return (struct guest_callbacks){
		.ended = guest_has_ended, .event = guest_event, .arg = resident};
}

/* --- The keeper ---------------------------------------------------------------------------------
 */

/* With the lock held. */
static struct resident *find_work(struct guests *guests)
{
	struct resident *resident = guests->first;

	/* Of one that is incoming nothing is stored yet. */
	while (resident && (resident->is_starting || !resident->vm ||
				   (!resident->has_ended && !resident->has_news)))
		resident = resident->next;
	return resident;
}

static int settle_end(struct resident *resident, struct fault *fault)
{
	struct guests *guests = resident->guests;
	struct fault left CLEANUP_FAULT = FAULT_INIT;
	pthread_mutex_lock(&guests->lock);
	bool is_given_away = resident->is_given_away;
	pthread_mutex_unlock(&guests->lock);
	int r = is_given_away ? 0
			      : guest_state_halted(guests->pool, resident->vm,
					guests->storage->host_ref, fault);

	if (r < 0)
		return r;
	/* What cannot be removed stays in the journal for the next start. */
	if (guests_forget_folder(guests, resident->run_dir, &left) < 0) {
		char *text CLEANUP_FREE = fault_describe(&left);
		log_warn("guest.leftover", "error=\"%s\"", text);
	}
	cancel_request(resident->ended, "the guest has ended");
	return 0;
}

static int settle(struct resident *resident, bool has_ended, bool is_paused)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = has_ended ? settle_end(resident, &fault)
			  : guest_state_set_paused(resident->guests->pool, resident->vm,
				    resident->guests->storage->host_ref, is_paused, &fault);

	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("guest.state_not_stored", "vm=%s error=\"%s\"", resident->vm, text);
	}
	return r;
}

static void work_on(struct resident *resident)
{
	struct guests *guests = resident->guests;

	pthread_mutex_lock(&guests->lock);
	bool has_ended = resident->has_ended;
	bool is_paused = resident->is_paused;
	resident->has_news = false;
	pthread_mutex_unlock(&guests->lock);
	if (settle(resident, has_ended, is_paused) == 0) {
		if (has_ended)
			resident_drop(resident);
		return;
	}
	/* A full disk, as a rule: until it can be stored it is not forgotten. */
	pthread_mutex_lock(&guests->lock);
	resident->has_news = true;
	pthread_mutex_unlock(&guests->lock);
	cancel_sleep(NULL, RETRY_USEC);
}

static void *keeper_main(void *arg)
{
	struct guests *guests = arg;

	pthread_mutex_lock(&guests->lock);
	while (!guests->is_stopping) {
		struct resident *resident = find_work(guests);
		if (!resident) {
			pthread_cond_wait(&guests->change, &guests->lock);
			continue;
		}
		resident->n_refs++;
		pthread_mutex_unlock(&guests->lock);
		work_on(resident);
		resident_unref(resident);
		pthread_mutex_lock(&guests->lock);
	}
	pthread_mutex_unlock(&guests->lock);
	return NULL;
}

int guests_start_keeper(struct guests *guests, struct fault *fault)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&guests->keeper, NULL, keeper_main, guests);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return fault_errno(fault, -r, "cannot start the guests' thread");
	guests->has_keeper = true;
	return 0;
}

void guests_stop_keeper(struct guests *guests)
{
	pthread_mutex_lock(&guests->lock);
	guests->is_stopping = true;
	pthread_cond_signal(&guests->change);
	pthread_mutex_unlock(&guests->lock);
	if (guests->has_keeper)
		pthread_join(guests->keeper, NULL);
	guests->has_keeper = false;
}
