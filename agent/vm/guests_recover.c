/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's start: processes and database are brought together. A row of the journal says that a
 * QEMU may be there; one that runs stays if its VM is to run. */
#include "agent/vm/guest_state.h"
#include "agent/vm/guests_internal.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"

#include <string.h>

/* The VM that is Running or Paused here and has that uuid: 1, with *ret_vm for the caller to free;
 * 0 when there is none. When the database cannot be asked, nothing is known of the guest. */
static int find_running(struct guests *guests, const char *uuid, char **ret_vm, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	char *vm CLEANUP_FREE = NULL;
	char *state CLEANUP_FREE = NULL;
	char *host CLEANUP_FREE = NULL;
	int r = object_get_by_uuid(guests->pool, "VM", uuid, &vm, &why);

	if (r == 0)
		r = object_get_string(guests->pool, "VM", vm, "power_state", &state, &why);
	if (r == 0)
		r = object_get_string(guests->pool, "VM", vm, "resident_on", &host, &why);
	if (r < 0 && (fault_is(&why, "UUID_INVALID") || fault_is(&why, "HANDLE_INVALID")))
		return 0;
	if (r < 0) {
		fault_move(fault, &why);
		return r;
	}
	if ((strcmp(state, "Running") != 0 && strcmp(state, "Paused") != 0) ||
		(!ref_is_null(host) && strcmp(host, guests->storage->host_ref) != 0))
		return 0;
	*ret_vm = TAKE_PTR(vm);
	return 1;
}

static struct resident *new_resident(struct guests *guests, const struct resource_row *row)
{
	struct resident *resident = xcalloc(1, sizeof(*resident));
	int64_t memory = value_find_int(row->detail, "memory", 0);

	*resident = (struct resident){
		.guests = guests,
		.migration = *row->owner ? xstrdup(row->owner) : NULL,
		.run_dir = xstrdup(row->name),
		.memory_bytes = memory > 0 ? (uint64_t)memory : 0,
		.ended = cancel_new(),
		.waited = cancel_new(),
		.n_refs = 1,
	};
	return resident;
}

static void add_to_list(struct resident *resident)
{
	struct guests *guests = resident->guests;
	SCOPE_LOCK(&guests->lock);

	resident->n_refs++;
	resident->next = guests->first;
	guests->first = resident;
}

/* What it did while no agent looked. A monitor that does not answer leaves the state as it is. */
static int take_in(struct resident *resident, struct fault *fault)
{
	struct guests *guests = resident->guests;
	bool is_running = true;
	int r = 0;

	if (guest_is_running(resident->guest, &is_running, NULL) == 0)
		r = guest_state_set_paused(
			guests->pool, resident->vm, guests->storage->host_ref, !is_running, fault);
	pthread_mutex_lock(&guests->lock);
	resident->is_paused = !is_running;
	pthread_mutex_unlock(&guests->lock);
	add_to_list(resident);
	return r;
}

/* The event that said so is past. */
static void look_for_memory(struct resident *resident)
{
	struct value *answer CLEANUP_VALUE = NULL;

	if (guest_command(resident->guest, "query-migrate", NULL, NULL, &answer, NULL) < 0 ||
		strcmp(value_find_string(answer, "status", ""), "completed") != 0)
		return;
	SCOPE_LOCK(&resident->guests->lock);
	resident->has_memory = true;
	cancel_request(resident->waited, "it has the memory");
}

/* One whose VM was given to this host runs, now; of the others their migrations decide. */
static int take_in_incoming(struct resident *resident, struct fault *fault)
{
	struct guests *guests = resident->guests;
	struct fault late CLEANUP_FAULT = FAULT_INIT;
	char *vm CLEANUP_FREE = NULL;
	bool is_committed = false;

	look_for_memory(resident);
	add_to_list(resident);
	int r = commit_find(guests->pool, resident->migration, &is_committed, &vm, NULL, fault);
	if (r <= 0 || !is_committed || !object_exists(guests->pool, "VM", vm))
		return MIN(r, 0);
	if (guests_take_over(guests, resident->migration, vm, NULL, &late) < 0) {
		/* The migration, which is asked about it again, tries again. */
		char *text CLEANUP_FREE = fault_describe(&late);
		log_error("guest.not_taken_over", "vm=%s error=\"%s\"", vm, text);
	}
	return 0;
}

/* "postmigrate" and the like: the guest itself is elsewhere. */
static bool is_a_guest(struct resident *resident)
{
	struct value *answer CLEANUP_VALUE = NULL;

	if (guest_command(resident->guest, "query-status", NULL, NULL, &answer, NULL) < 0)
		return true; /* one that does not answer is not killed for that */
	const char *status = value_find_string(answer, "status", "");
	return strcmp(status, "running") == 0 || strcmp(status, "paused") == 0;
}

static int make_right(struct resident *resident, const char *vm, struct fault *fault)
{
	struct guests *guests = resident->guests;
	char *console CLEANUP_FREE = guest_file(resident->run_dir, GUEST_CONSOLE);
	const struct guest_running running = {.vm = vm,
		.host_ref = guests->storage->host_ref,
		.console_path = console,
		.domid = guests_take_domid(guests)};
	int r = guest_state_started(guests->pool, &running, fault);

	if (r < 0)
		return r;
	log_warn("guest.corrected", "vm=%s pid=%d: it runs here, unlike the database says", vm,
		(int)guest_pid(resident->guest));
	resident->vm = xstrdup(vm);
	return take_in(resident, fault);
}

/* It was started here, or came here, after what the database knows: the process is right. */
static int correct(struct resident *resident, const char *uuid, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	char *vm CLEANUP_FREE = NULL;
	int r = object_get_by_uuid(resident->guests->pool, "VM", uuid, &vm, &why);

	if (r == 0)
		return make_right(resident, vm, fault);
	if (!fault_is(&why, "UUID_INVALID")) {
		fault_move(fault, &why);
		return r;
	}
	resident->guests->n_unknown++;
	log_error("guest.unknown", "vm=%s pid=%d: the database has no such VM; it runs on", uuid,
		(int)guest_pid(resident->guest));
	return 0;
}

bool guests_are_known(const struct guests *guests)
{
	return guests->n_unknown == 0;
}

static int recover_row(struct guests *guests, const struct resource_row *row, struct fault *fault)
{
	const char *uuid = value_find_string(row->detail, "uuid", "");
	struct resident *resident CLEANUP_RESIDENT = new_resident(guests, row);
	const struct guest_callbacks callbacks = resident_callbacks(resident);
	int r = guest_find(uuid, row->name, &callbacks, &resident->guest, fault);

	if (r < 0)
		return r;
	if (r > 0 && resident->migration)
		return take_in_incoming(resident, fault);
	int wanted = find_running(guests, uuid, &resident->vm, fault);
	if (wanted < 0)
		return wanted;
	if (r > 0 && resident->vm)
		return take_in(resident, fault);
	if (r > 0 && guests->is_doubtful && is_a_guest(resident))
		return correct(resident, uuid, fault);
	if (r > 0) {
		log_warn("guest.unwanted", "vm=%s pid=%d: its VM is not to run", uuid,
			(int)guest_pid(resident->guest));
		r = guest_kill(resident->guest, fault);
		if (r < 0)
			return r;
	}
	return guests_forget_folder(guests, row->name, fault);
}

static int recover_rows(struct guests *guests, struct fault *fault)
{
	struct resource_row *rows = NULL;
	size_t n = 0;
	int r = resource_list(guests->storage->agent, NULL, GUESTS_KIND, &rows, &n, fault);

	for (size_t i = 0; r >= 0 && i < n; i++)
		r = recover_row(guests, &rows[i], fault);
	for (size_t i = 0; i < n; i++)
		resource_row_clear(&rows[i]);
	free(rows);
	return r;
}

/* 1: another host is the pool's coordinator. */
static int is_member(struct guests *guests, struct fault *fault)
{
	struct value *pools CLEANUP_VALUE = NULL;
	int r = object_get_all_records(guests->pool, "pool", &pools, fault);

	if (r < 0 || pools->record.n_members == 0)
		return r;
	const char *master = value_find_string(pools->record.members[0].value, "master", "");
	return strcmp(master, guests->storage->host_ref) != 0;
}

/* VMs that no host has are the coordinator's. */
static bool is_ours(struct guests *guests, const struct value *record, bool member)
{
	const char *host = guests->storage->host_ref;
	const char *resident = value_find_string(record, "resident_on", REF_NULL);
	const char *scheduled = value_find_string(record, "scheduled_to_be_resident_on", REF_NULL);

	if (strcmp(resident, host) == 0 || strcmp(scheduled, host) == 0)
		return true;
	return !member && ref_is_null(resident) && ref_is_null(scheduled);
}

static int recover_vm(
	struct guests *guests, const char *vm, const struct value *record, struct fault *fault)
{
	struct resident *resident CLEANUP_RESIDENT = resident_find(guests, vm);
	const char *state = value_find_string(record, "power_state", "");
	int r = 0;

	if (value_find_bool(record, "is_control_domain", false) || strcmp(state, "Suspended") == 0)
		return 0;
	if (resident) {
		int64_t domid = value_find_int(record, "domid", 0);
		guests->next_domid = MAX(guests->next_domid, domid + 1);
	} else {
		if (strcmp(state, "Halted") != 0)
			log_warn("guest.gone", "vm=%s state=%s: it ended while no agent looked",
				value_find_string(record, "uuid", ""), state);
		r = guest_state_halted(guests->pool, vm, guests->storage->host_ref, fault);
	}
	return r < 0 ? r : guest_state_forget_marks(guests->pool, vm, fault);
}

int guests_recover(struct guests *guests, struct fault *fault)
{
	struct value *vms CLEANUP_VALUE = NULL;
	int r = recover_rows(guests, fault);

	if (r >= 0)
		r = is_member(guests, fault);
	bool member = r > 0;
	if (r >= 0)
		r = object_get_all_records(guests->pool, "VM", &vms, fault);
	for (size_t i = 0; r >= 0 && i < vms->record.n_members; i++) {
		const struct value_member *vm = &vms->record.members[i];
		if (is_ours(guests, vm->value, member))
			r = recover_vm(guests, vm->name, vm->value, fault);
	}
	return r < 0 ? r : guests_start_keeper(guests, fault);
}
