/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/doctor.h"

#include "agent/migrate/copies_internal.h"
#include "agent/migrate/doctor_internal.h"
#include "agent/migrate/raw_disk.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Between the two looks: what works on something is done with one step of it by then. */
#define PAUSE_USEC USEC_PER_SEC

#define VDI_MOVE_KIND "vdi-move" /* of resources; vdi_move_internal.h */

static const struct fix {
	const char *kind;
	int (*run)(struct doctor *doctor, const struct value *finding, struct fault *fault);
} fixes[] = {
	{"process", doctor_fix_process},
	{"bitmap", doctor_fix_guest},
	{"nbd-export", doctor_fix_guest},
	{"node", doctor_fix_guest},
	{"resource", doctor_fix_resource},
	{"migration", doctor_fix_migration},
	{"mark", doctor_fix_mark},
	{"session", doctor_fix_session},
	{"commit", doctor_fix_commit},
};

struct value *doctor_add(struct doctor *doctor, const char *kind, const char *what,
	const char *where, bool fixable, const char *why, ...)
{
	struct value *finding = value_new_struct();
	char *text CLEANUP_FREE = NULL;
	va_list args;

	va_start(args, why);
	if (vasprintf(&text, why, args) < 0)
		abort();
	va_end(args);
	value_set_string(finding, "kind", kind);
	value_set_string(finding, "what", what);
	value_set_string(finding, "where", where);
	value_set_string(finding, "why", text);
	value_set_bool(finding, "fixable", fixable);
	value_set_bool(finding, "fixed", false);
	value_set_string(finding, "error", "");
	value_append(doctor->findings, finding);
	return finding;
}

/* --- Who lives ----------------------------------------------------------------------------------
 */

bool doctor_task_is_pending(struct doctor *doctor, const char *task)
{
	char *status CLEANUP_FREE = NULL;

	return object_get_string(
		       doctor->params->storage->pool, "task", task, "status", &status, NULL) == 0 &&
	       strcmp(status, "pending") == 0;
}

/* A disk's move, or a copy, is the task that waits for it; a crash ends both. */
static bool is_of_task(struct doctor *doctor, const char *owner, const char *kind)
{
	struct resource_row *rows = NULL;
	size_t n = 0;
	bool found = false;

	resource_list(doctor->params->storage->agent, owner, kind, &rows, &n, NULL);
	for (size_t i = 0; i < n; i++) {
		found |= doctor_task_is_pending(
			doctor, value_find_string(rows[i].detail, "key", ""));
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return found;
}

bool doctor_is_living(struct doctor *doctor, const char *owner)
{
	struct migration *m CLEANUP_MIGRATION = registry_find(&doctor->supervisor->registry, owner);
	struct migration_row row = {0};

	if (m)
		return true;
	/* What cannot be asked may live. */
	int r = migration_load(doctor->params->storage->agent, owner, &row, NULL);
	bool under_way = r < 0 || (r > 0 && !row.finished);
	if (r > 0)
		migration_row_clear(&row);
	return under_way || is_of_task(doctor, owner, VDI_MOVE_KIND) ||
	       is_of_task(doctor, owner, COPIES_KIND) || is_of_task(doctor, owner, RAW_DISK_KIND);
}

bool doctor_is_leaving(struct doctor *doctor, const char *vm_uuid)
{
	size_t n;
	struct migration **all CLEANUP_FREE = registry_all(&doctor->supervisor->registry, &n);
	bool found = false;

	for (size_t i = 0; i < n; i++) {
		struct migration *m CLEANUP_MIGRATION = all[i];
		char *uuid CLEANUP_FREE = migration_get_string(m, "vm_uuid");
		found |= m->role == ROLE_SENDER && uuid && strcmp(uuid, vm_uuid) == 0;
	}
	return found;
}

int doctor_bury(struct doctor *doctor, const char *owner, struct fault *fault)
{
	bool committed = false;
	char *vm CLEANUP_FREE = NULL;

	if (doctor_is_living(doctor, owner))
		return fault_text(fault, -EBUSY, "migration %s is under way", owner);
	int r = commit_decide(
		doctor->params->storage->pool, owner, false, NULL, &committed, &vm, fault);
	if (r == 0 && doctor_is_living(doctor, owner))
		r = fault_text(fault, -EBUSY, "migration %s has just begun", owner);
	return r;
}

/* --- Looking ------------------------------------------------------------------------------------
 */

static int compare(const void *a, const void *b)
{
	static const char *const keys[] = {"kind", "where", "what"};
	const struct value *x = *(const struct value *const *)a;
	const struct value *y = *(const struct value *const *)b;
	int order = 0;

	for (size_t i = 0; i < ARRAY_SIZE(keys) && order == 0; i++)
		order = strcmp(
			value_find_string(x, keys[i], ""), value_find_string(y, keys[i], ""));
	return order;
}

static struct value *look(struct supervisor *supervisor)
{
	struct doctor doctor = {.supervisor = supervisor,
		.params = supervisor->params,
		.findings = value_new_array()};

	doctor_look_at_storage(&doctor);
	doctor_look_at_run_dir(&doctor);
	doctor_look_at_processes(&doctor);
	doctor_look_at_guests(&doctor);
	doctor_look_at_exports(&doctor);
	doctor_look_at_journal(&doctor);
	doctor_look_at_pool(&doctor);
	if (doctor.findings->array.n_items)
		qsort(doctor.findings->array.items, doctor.findings->array.n_items,
			sizeof(struct value *), compare);
	return doctor.findings;
}

static bool has(const struct value *findings, const struct value *finding)
{
	for (size_t i = 0; i < findings->array.n_items; i++)
		if (compare(&findings->array.items[i], &finding) == 0)
			return true;
	return false;
}

/* What both looks have seen. */
static struct value *look_twice(struct supervisor *supervisor)
{
	struct value *first CLEANUP_VALUE = look(supervisor);
	struct value *both = value_new_array();

	if (first->array.n_items == 0 || cancel_sleep(supervisor->stop, PAUSE_USEC) < 0)
		return both;
	struct value *second CLEANUP_VALUE = look(supervisor);
	for (size_t i = 0; i < second->array.n_items; i++)
		if (has(first, second->array.items[i]))
			value_append(both, value_copy(second->array.items[i]));
	return both;
}

/* --- Removing -----------------------------------------------------------------------------------
 */

static void fix_one(struct doctor *doctor, struct value *finding)
{
	const char *kind = value_find_string(finding, "kind", "");
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = -EOPNOTSUPP;

	for (size_t i = 0; i < ARRAY_SIZE(fixes); i++)
		if (strcmp(fixes[i].kind, kind) == 0)
			r = fixes[i].run(doctor, finding, &fault);
	char *text CLEANUP_FREE = r < 0 ? fault_describe(&fault) : NULL;
	value_set_bool(finding, "fixed", r >= 0);
	value_set_string(finding, "error", text ? text : "");
	log_warn(r < 0 ? "DOCTOR-NOT-FIXED" : "DOCTOR-FIXED",
		"kind=%s what=\"%s\" where=\"%s\" error=\"%s\"", kind,
		value_find_string(finding, "what", ""), value_find_string(finding, "where", ""),
		text ? text : "");
}

/* Processes first, as they have the folders and the files; last the row that all hangs on. */
static unsigned turn_of(const struct value *finding)
{
	const char *kind = value_find_string(finding, "kind", "");

	return strcmp(kind, "process") == 0 ? 0 : strcmp(kind, "migration") == 0 ? 2 : 1;
}

static void fix_all(struct supervisor *supervisor, struct value *findings)
{
	struct doctor doctor = {.supervisor = supervisor, .params = supervisor->params};

	for (unsigned turn = 0; turn <= 2; turn++)
		for (size_t i = 0; i < findings->array.n_items; i++) {
			struct value *finding = findings->array.items[i];
			if (turn_of(finding) == turn && value_find_bool(finding, "fixable", false))
				fix_one(&doctor, finding);
		}
}

int doctor_examine(
	struct supervisor *supervisor, bool fix, struct value **ret_findings, struct fault *fault)
{
	struct value *findings CLEANUP_VALUE = look_twice(supervisor);

	if (cancel_is_requested(supervisor->stop))
		return fault_text(fault, -ESHUTDOWN, "this agent is stopping");
	if (fix)
		fix_all(supervisor, findings);
	*ret_findings = TAKE_PTR(findings);
	return 0;
}
