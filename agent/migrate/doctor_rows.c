/* SPDX-License-Identifier: Apache-2.0 */
/* The journal of agent.db: what it has of migrations that are dead. */
#include "agent/guest/image_export.h"
#include "agent/migrate/copies.h"
#include "agent/migrate/doctor_internal.h"
#include "agent/migrate/raw_disk.h"
#include "agent/migrate/vdi_move.h"
#include "base/alloc.h"
#include "target/image_server.h"
#include "target/tgt.h"

#include <errno.h>
#include <string.h>

/* --- Looking ------------------------------------------------------------------------------------
 */

/* A guest's row that is nobody's migration: its VM runs, or is about to. */
static void look_at_own(struct doctor *doctor, const struct resource_row *row)
{
	const char *uuid = value_find_string(row->detail, "uuid", "");
	struct pool_db *pool = doctor->params->storage->pool;
	struct value *record CLEANUP_VALUE = NULL;
	char *vm CLEANUP_FREE = NULL;

	if (strcmp(row->kind, "qemu") != 0)
		return;
	if (object_get_by_uuid(pool, "VM", uuid, &vm, NULL) == 0 &&
		object_get_record(pool, "VM", vm, &record, NULL) == 0 &&
		(strcmp(value_find_string(record, "power_state", ""), "Halted") != 0 ||
			value_find(record, "current_operations")->record.n_members > 0))
		return;
	doctor_add(doctor, "guest", uuid, row->name, false,
		"the journal has a guest whose VM does not run; the next start of the agent puts "
		"that right");
}

static void look_at_resource(struct doctor *doctor, const struct resource_row *row)
{
	if (!*row->owner) {
		look_at_own(doctor, row);
		return;
	}
	if (doctor_is_living(doctor, row->owner))
		return;
	struct value *finding = doctor_add(doctor, "resource", row->name, "agent.db", true,
		"%s of migration %s, which is dead", row->kind, row->owner);
	value_set_string(finding, "owner", row->owner);
}

static void look_at_migration(struct doctor *doctor, const struct migration_row *row)
{
	struct migration *m CLEANUP_MIGRATION =
		registry_find(&doctor->supervisor->registry, row->uuid);

	if (m)
		return;
	doctor_add(doctor, "migration", row->uuid, "agent.db", row->finished != 0,
		row->finished ? "it has ended (%s), and its row is still there"
			      : "it is %s, and nobody works on it; the next start of the agent "
				"goes on with it",
		migration_state_name(row->state));
}

void doctor_look_at_journal(struct doctor *doctor)
{
	struct agent_db *agent = doctor->params->storage->agent;
	struct resource_row *resources = NULL;
	struct migration_row *migrations = NULL;
	size_t n = 0;

	resource_list(agent, NULL, NULL, &resources, &n, NULL);
	for (size_t i = 0; i < n; i++) {
		look_at_resource(doctor, &resources[i]);
		resource_row_clear(&resources[i]);
	}
	free(resources);
	n = 0;
	migration_list(agent, false, &migrations, &n, NULL);
	for (size_t i = 0; i < n; i++) {
		look_at_migration(doctor, &migrations[i]);
		migration_row_clear(&migrations[i]);
	}
	free(migrations);
}

/* --- Removing -----------------------------------------------------------------------------------
 */

/* The processes that had it were ended before. */
static int forget_folder(
	struct doctor *doctor, const struct resource_row *row, bool is_tgtd, struct fault *fault)
{
	int r = is_tgtd ? tgt_forget_run_dir(row->name) : image_server_forget_folder(row->name);

	if (r < 0)
		return fault_errno(fault, r, "removing what is left in %s", row->name);
	return resource_forget(doctor->params->storage->agent, row->id, fault);
}

/* Ends the exports of the dead move in the guest, if that still runs. */
static int forget_export(struct doctor *doctor, const struct resource_row *row, struct fault *fault)
{
	struct resident *resident =
		guests_hold(doctor->params->guests, value_find_string(row->detail, "vm", ""));
	int r = resident ? image_export_forget(resident_guest(resident), row->owner, fault) : 0;

	guests_release(resident);
	return r < 0 ? r : resource_forget(doctor->params->storage->agent, row->id, fault);
}

static int remove_resource(
	struct doctor *doctor, const struct resource_row *row, struct fault *fault)
{
	const struct storage *storage = doctor->params->storage;

	if (strcmp(row->kind, "vdi-file") == 0)
		return storage_recover(storage, row->owner, fault);
	if (strcmp(row->kind, "tgtd") == 0)
		return forget_folder(doctor, row, true, fault);
	if (strcmp(row->kind, "image-server") == 0)
		return forget_folder(doctor, row, false, fault);
	if (strcmp(row->kind, "image-export") == 0)
		return forget_export(doctor, row, fault);
	if (strcmp(row->kind, "qemu") == 0)
		return guests_end_incoming(doctor->params->guests, row->owner, fault);
	/* The bitmaps themselves are looked for in each guest. */
	if (strcmp(row->kind, "bitmaps") == 0)
		return resource_forget(storage->agent, row->id, fault);
	if (strcmp(row->kind, "vdi-move") == 0)
		return vdi_move_settle_row(doctor->params, row, fault);
	if (strcmp(row->kind, "copy") == 0)
		return copies_settle_row(doctor->params, row, fault);
	if (strcmp(row->kind, RAW_DISK_KIND) == 0)
		return raw_disk_settle_row(storage, row, fault);
	return fault_text(fault, -EOPNOTSUPP, "nothing here knows how to remove a %s", row->kind);
}

/* With the rows as they are now: one removal may have taken others along. */
int doctor_fix_resource(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	const char *owner = value_find_string(finding, "owner", "");
	const char *name = value_find_string(finding, "what", "");
	struct resource_row *rows = NULL;
	size_t n = 0;
	int r = doctor_bury(doctor, owner, fault);

	if (r == 0)
		r = resource_list(doctor->params->storage->agent, owner, NULL, &rows, &n, fault);
	for (size_t i = 0; i < n; i++) {
		if (r == 0 && strcmp(rows[i].name, name) == 0)
			r = remove_resource(doctor, &rows[i], fault);
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}

int doctor_fix_migration(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	return migration_forget(
		doctor->params->storage->agent, value_find_string(finding, "what", ""), fault);
}
