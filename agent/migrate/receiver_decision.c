/* SPDX-License-Identifier: Apache-2.0 */
/* The decision and what follows it: commit, finish, abort. */
#include "agent/migrate/live.h"
#include "agent/migrate/metadata.h"
#include "agent/migrate/receiver_internal.h"
#include "agent/migrate/rehome.h"
#include "agent/migrate/safeguard.h"
#include "agent/vm/guest_state.h"
#include "base/alloc.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/disk.h"

#include <errno.h>

int receiver_refuse(struct migration *m, const char *call, struct fault *fault)
{
	char *who CLEANUP_FREE = migration_get_string(m, "cancelled_by");

	if (who && migration_cancel_requested(m))
		return fault_text(fault, -EINVAL,
			"migration %s was cancelled at the destination by %s", m->uuid, who);
	return fault_text(fault, -EINVAL, "migration %s is %s at the destination: no %s now",
		m->uuid, migration_state_name(migration_state(m)), call);
}

int receiver_give_up(struct migration *m, int error, const struct fault *fault)
{
	struct fault ignored CLEANUP_FAULT = FAULT_INIT;

	migration_set_error(m, fault);
	/* The keeper goes on with what is left of it. */
	receiver_abort(m, EVENT_FAILED, &ignored);
	return error;
}

struct import {
	struct migration *migration;
	const struct value *manifest;
	const struct value *disks;
	const char *console; /* of its guest; NULL: the VM is halted */
	bool again;          /* the database is one that does not know of it any more */
	char *vm;
	bool committed;
};

/* The guest has its memory and waits for nothing but this. */
static int make_running(struct import *import, const char *vm, struct fault *fault)
{
	const struct supervisor_params *params = import->migration->params;
	const struct guest_running running = {.vm = vm,
		.host_ref = params->storage->host_ref,
		.console_path = import->console,
		.domid = guests_take_domid(params->guests)};

	return guest_state_started(params->storage->pool, &running, fault);
}

static int take_vm(
	struct pool_db *pool, const struct import *import, char **ret_vm, struct fault *fault)
{
	const struct value *manifest = import->manifest;

	if (!rehome_is_wanted(manifest))
		return metadata_import(pool, manifest, import->disks,
			value_find_bool(manifest, "copy", false), ret_vm, fault);
	*ret_vm = xstrdup(value_find_string(manifest, "vm_ref", REF_NULL));
	return rehome_commit(
		import->migration->params->storage, manifest, import->disks, !import->again, fault);
}

/* Its guest has ended. */
static int make_halted(struct import *import, const char *vm, struct fault *fault)
{
	const struct storage *storage = import->migration->params->storage;

	return guest_state_halted(storage->pool, vm, storage->host_ref, fault);
}

/* One transaction: either the VM is here (and runs) and the migration committed, or neither. */
static int import_and_decide(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct import *import = arg;
	char *vm CLEANUP_FREE = NULL;
	char *decided_vm CLEANUP_FREE = NULL;

	int r = take_vm(pool, import, &vm, fault);
	if (r == 0 && import->console)
		r = make_running(import, vm, fault);
	else if (r == 0 && import->again)
		r = make_halted(import, vm, fault);
	if (r == 0)
		r = commit_decide(pool, import->migration->uuid, true, vm, &import->committed,
			&decided_vm, fault);
	if (r == 0 && !import->committed)
		r = fault_text(fault, -ECANCELED, "migration %s was aborted before",
			import->migration->uuid);
	if (r == 0)
		import->vm = TAKE_PTR(vm);
	return r;
}

/* *ret_vm: the VM when pool.db holds that it is committed; -ECANCELED when aborted. */
static int find_decision(struct migration *m, char **ret_vm, struct fault *fault)
{
	bool committed = false;
	int64_t at;

	int r = commit_find(m->params->storage->pool, m->uuid, &committed, ret_vm, &at, fault);
	if (r <= 0 || committed)
		return MIN(r, 0);
	return fault_text(fault, -ECANCELED, "migration %s was aborted before", m->uuid);
}

/* The seal may be long ago. */
static int check_files(const struct value *disks, struct fault *fault)
{
	for (size_t i = 0; i < disks->array.n_items; i++) {
		const char *path = value_find_string(disks->array.items[i], "path", "");
		struct disk_info info = {0};
		int r = disk_inspect(path, &info, fault);
		if (r < 0)
			return r;
		if (!info.regular || (int64_t)info.size_bytes !=
					     value_find_int(disks->array.items[i], "size", 0))
			return fault_text(fault, -ESTALE,
				"commit: disk %zu at the destination: %s is no longer the file "
				"that "
				"was sealed",
				i, path);
	}
	return 0;
}

/* The console's path of the guest that waits; NULL for a halted VM. */
static char *console_of(struct migration *m)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;

	if (live_is_wanted(m))
		resident = guests_find_incoming(m->params->guests, m->uuid);
	return resident ? guest_file(resident_run_dir(resident), GUEST_CONSOLE) : NULL;
}

/* It is committed here, and this database, a copy that took the place of the one that said so, does
 * not know it. */
static int redo(struct migration *m, struct fault *fault)
{
	struct value *manifest CLEANUP_VALUE = migration_get(m, "manifest");
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	char *uuid CLEANUP_FREE = migration_get_string(m, "vm_uuid");
	char *console CLEANUP_FREE =
		live_is_wanted(m) ? guests_running_console(m->params->guests, uuid) : NULL;
	struct import import = {.migration = m,
		.manifest = manifest,
		.disks = disks,
		.console = console,
		.again = true};
	int r = check_files(disks, fault);

	if (r == 0)
		r = pool_db_transaction(
			m->params->storage->pool, import_and_decide, &import, fault);
	if (r == 0 && import.vm) {
		migration_set(m, "vm", value_new_string(import.vm));
		r = migration_save(m, fault);
	}
	if (r == 0)
		log_warn("MIG-COMMITTED-AGAIN",
			"migration=%s vm=%s: the pool's database did not know of it any more",
			m->uuid, uuid);
	free(import.vm);
	return r;
}

/* COMMITTED: the pool's database says so too when this returns 0. */
static int confirm(struct migration *m, struct fault *fault)
{
	char *vm CLEANUP_FREE = NULL;
	int r = find_decision(m, &vm, fault);

	return r < 0 || vm ? r : redo(m, fault);
}

static int decide_commit(struct migration *m, char **ret_vm, struct fault *fault)
{
	struct value *manifest CLEANUP_VALUE = migration_get(m, "manifest");
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	char *console CLEANUP_FREE = console_of(m);
	struct import import = {
		.migration = m, .manifest = manifest, .disks = disks, .console = console};

	if (migration_cancel_requested(m))
		return fault_text(fault, -ECANCELED,
			"migration %s was cancelled at the destination", m->uuid);
	int r = check_files(disks, fault);
	if (r == 0)
		r = INJECT_FAULT(fault, "decide.committed.before");
	if (r == 0)
		r = pool_db_transaction(
			m->params->storage->pool, import_and_decide, &import, fault);
	if (r == 0)
		(void)INJECT("decide.committed.after");
	*ret_vm = import.vm;
	return r;
}

/* The guest runs first, everything else is for later. */
static int resume(struct migration *m, const char *vm, struct fault *fault)
{
	if (!live_is_wanted(m))
		return 0;
	int r = guests_take_over(m->params->guests, m->uuid, vm, &m->resumed_usec, fault);
	if (r < 0 && r != -ESRCH)
		return r;
	migration_set(m, "resumed", value_new_bool(r == 0));
	if (r == -ESRCH) {
		char *text CLEANUP_FREE = fault_describe(fault);
		log_error("MIG-NOT-RESUMED", "migration=%s error=\"%s\"", m->uuid, text);
		fault_clear(fault);
	}
	return 0;
}

/* After the decision: what fails now is asked for again. */
static int follow(struct migration *m, const char *vm, struct fault *fault)
{
	int r = resume(m, vm, fault);

	if (r < 0)
		return r;
	migration_set(m, "vm", value_new_string(vm));
	m->quiet = false;
	r = migration_post(m, EVENT_COMMITTED, fault);
	receiver_close_door(m);
	/* The journal has done its work: the VDI rows name the files now. */
	if (r == 0)
		storage_recover(m->params->storage, m->uuid, NULL);
	return r;
}

/* *ret_vm NULL: nothing is decided, and nothing speaks against the commit. */
static int look_before(struct migration *m, char **ret_vm, struct fault *fault)
{
	int r = find_decision(m, ret_vm, fault);

	return r < 0 || *ret_vm || !live_is_wanted(m) ? r : receiver_await_memory(m, fault);
}

int receiver_commit(struct migration *m, struct fault *fault)
{
	char *vm CLEANUP_FREE = NULL;

	if (migration_state(m) == STATE_COMMITTED)
		return confirm(m, fault);
	if (migration_state(m) != STATE_SEALED)
		return receiver_refuse(m, "commit", fault);
	int r = look_before(m, &vm, fault);
	/* No cancel comes between from here on. */
	migration_decide_begin(m);
	if (r == 0 && !vm)
		r = decide_commit(m, &vm, fault);
	if (r == 0)
		r = follow(m, vm, fault);
	/* This agent stops, which decides nothing: QEMU waits for the next one. */
	else if (cancel_is_requested(m->stop))
		r = migration_busy(m->uuid, -ESHUTDOWN, fault);
	else
		r = receiver_give_up(m, r, fault);
	migration_decide_end(m);
	return r;
}

int receiver_finish(struct migration *m, struct fault *fault)
{
	if (migration_state(m) == STATE_DONE)
		return 0;
	if (migration_state(m) != STATE_COMMITTED)
		return receiver_refuse(m, "finish", fault);
	int r = receiver_withdraw(m, fault);

	if (r == 0)
		r = storage_recover(m->params->storage, m->uuid, fault);
	/* Should the database be lost now, this host alone can commit it again. */
	if (r < 0 || safeguard_is_exposed(m))
		return r;
	return migration_post(m, EVENT_FINISHED, fault);
}

static int say_committed(struct fault *fault)
{
	return fault_set(fault, -EALREADY, "OPERATION_NOT_ALLOWED",
		"the migration is committed: the VM belongs to the destination", NULL);
}

static int decide_abort(struct migration *m, struct fault *fault)
{
	bool committed;
	char *vm CLEANUP_FREE = NULL;

	int r = INJECT_FAULT(fault, "decide.aborted.before");
	if (r == 0)
		r = commit_decide(
			m->params->storage->pool, m->uuid, false, NULL, &committed, &vm, fault);
	if (r == 0)
		(void)INJECT("decide.aborted.after");
	return r == 0 && committed ? say_committed(fault) : r;
}

int receiver_abort(struct migration *m, enum migration_event why, struct fault *fault)
{
	enum migration_state state = migration_state(m);

	if (state == STATE_FAILED || state == STATE_CANCELLED)
		return 0;
	if (state == STATE_COMMITTED) {
		int r = confirm(m, fault);
		return r < 0 ? r : say_committed(fault);
	}
	m->quiet = false;
	int r = decide_abort(m, fault);
	if (r == 0 && state != STATE_ABORTING)
		r = migration_post(m, why, fault);
	/* First what could run the guest: until it is dead nobody is told that all is undone. */
	if (r == 0)
		r = receiver_end_incoming(m, fault);
	if (r < 0)
		return r;
	r = receiver_withdraw(m, fault);
	if (r == 0)
		r = storage_recover(m->params->storage, m->uuid, fault);
	if (r < 0)
		return r;
	return migration_post(
		m, migration_cancel_requested(m) ? EVENT_UNDONE_CANCELLED : EVENT_UNDONE, fault);
}

/* --- After the loss of the database -------------------------------------------------------------
 */

/* A guest that runs was told so after the commit, whatever could be stored since. */
static bool was_committed(struct migration *m)
{
	char *uuid CLEANUP_FREE = migration_get_string(m, "vm_uuid");

	if (m->role != ROLE_RECEIVER)
		return false;
	if (migration_state(m) != STATE_SEALED || !live_is_wanted(m))
		return migration_state(m) == STATE_COMMITTED;
	char *console CLEANUP_FREE = guests_running_console(m->params->guests, uuid);
	return console;
}

static void redo_row(const struct supervisor_params *params, struct migration_row *row)
{
	struct migration *m CLEANUP_MIGRATION = migration_new(params, row);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (!was_committed(m) || confirm(m, &fault) == 0)
		return;
	/* Whoever asks about it is told nothing until it is so. */
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_error("MIG-NOT-COMMITTED-AGAIN", "migration=%s error=\"%s\"", m->uuid, text);
}

int receiver_redo(const struct supervisor_params *params, struct fault *fault)
{
	struct migration_row *rows = NULL;
	size_t n = 0;
	int r = migration_list(params->storage->agent, false, &rows, &n, fault);

	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			redo_row(params, &rows[i]);
		migration_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}
