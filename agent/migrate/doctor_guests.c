/* SPDX-License-Identifier: Apache-2.0 */
/* What moves leave inside running QEMUs, and inside the tgtd of an incoming migration. */
#include "agent/guest/guest_nbd.h"
#include "agent/migrate/doctor_internal.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "target/tgt_list.h"

#include <errno.h>
#include <string.h>

#define UUID_LENGTH 36

/* --- QEMU ---------------------------------------------------------------------------------------
 */

/* The migration, or disk's move, that the name of ours holds; false: it is not ours. */
static bool find_move(const char *name, char *ret_uuid)
{
	static const char *const prefixes[] = {
		"ferry.ferry-", "ferry.vdi-", "ferry.cpy-", "ferry-image."};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t n = strlen(prefixes[i]);
		if (strncmp(name, prefixes[i], n) != 0 || strlen(name) < n + UUID_LENGTH)
			continue;
		memcpy(ret_uuid, name + n, UUID_LENGTH);
		ret_uuid[UUID_LENGTH] = '\0';
		return uuid_is_valid(ret_uuid);
	}
	return false;
}

static void judge(struct doctor *doctor, const char *kind, const char *name, const char *node,
	const char *run_dir)
{
	char move[UUID_LENGTH + 1];
	bool is_ours = find_move(name, move);

	if (is_ours && doctor_is_living(doctor, move))
		return;
	struct value *finding = doctor_add(doctor, kind, name, run_dir, is_ours, "%s",
		is_ours ? "the move that it was made for is dead"
			: "it is in a guest's QEMU, and no move's of Ferry");
	value_set_string(finding, "owner", is_ours ? move : "");
	value_set_string(finding, "node", node);
}

/* A proxy's name is a hash: it is nobody's when nothing of the guest moves. */
static void judge_node(
	struct doctor *doctor, const struct value *node, const char *run_dir, bool is_moving)
{
	const char *name = value_find_string(node, "node-name", "");

	if (strcmp(value_find_string(node, "drv", ""), "null-co") != 0 || is_moving)
		return;
	doctor_add(doctor, "node", name, run_dir, strncmp(name, "ferry.", 6) == 0,
		"nothing of the guest moves");
}

static void look_at_nodes(
	struct doctor *doctor, const struct value *nodes, const char *run_dir, bool is_moving)
{
	for (size_t i = 0; i < nodes->array.n_items; i++) {
		const struct value *node = nodes->array.items[i];
		const struct value *bitmaps = value_find(node, "dirty-bitmaps");
		for (size_t j = 0; bitmaps && j < bitmaps->array.n_items; j++)
			judge(doctor, "bitmap",
				value_find_string(bitmaps->array.items[j], "name", ""),
				value_find_string(node, "node-name", ""), run_dir);
		judge_node(doctor, node, run_dir, is_moving);
	}
}

static int query_nodes(struct guest *guest, struct value **ret_nodes)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_bool(arguments, "flat", true);
	int r = guest_command(guest, "query-named-block-nodes", arguments, NULL, ret_nodes, NULL);
	if (r == 0 && (*ret_nodes)->type != VALUE_ARRAY)
		r = -EBADMSG;
	return r;
}

/* Whether the guest, or a disk of it, moves. */
static bool is_moving(struct doctor *doctor, const char *run_dir)
{
	const char *uuid = strrchr(run_dir, '/') + 1;
	char *vm CLEANUP_FREE = NULL;
	struct value *marks CLEANUP_VALUE = NULL;
	struct pool_db *pool = doctor->params->storage->pool;

	if (doctor_is_leaving(doctor, uuid))
		return true;
	return object_get_by_uuid(pool, "VM", uuid, &vm, NULL) == 0 &&
	       object_get_field(pool, "VM", vm, "current_operations", &marks, NULL) == 0 &&
	       marks->record.n_members > 0;
}

static void look_at_guest(void *arg, struct resident *resident)
{
	struct doctor *doctor = arg;
	struct guest *guest = resident_guest(resident);
	const char *run_dir = resident_run_dir(resident);
	struct value *nodes CLEANUP_VALUE = NULL;
	struct value *exports CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (!guest_is_alive(guest))
		return;
	if (query_nodes(guest, &nodes) < 0 ||
		guest_nbd_query_exports(guest, &exports, &fault) < 0) {
		if (guest_is_alive(guest))
			doctor_add(doctor, "guest", strrchr(run_dir, '/') + 1, run_dir, false,
				"its QEMU does not answer: what is in it is not known");
		return;
	}
	look_at_nodes(doctor, nodes, run_dir, is_moving(doctor, run_dir));
	for (size_t i = 0; i < exports->array.n_items; i++)
		judge(doctor, "nbd-export", value_find_string(exports->array.items[i], "id", ""),
			"", run_dir);
}

void doctor_look_at_guests(struct doctor *doctor)
{
	if (doctor->params->guests)
		guests_each(doctor->params->guests, look_at_guest, doctor);
}

struct removal {
	struct doctor *doctor;
	const struct value *finding;
	struct fault *fault;
	int result; /* 1: the guest was not found */
};

static int remove_bitmap(struct guest *guest, const struct value *finding, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_string(arguments, "node", value_find_string(finding, "node", ""));
	value_set_string(arguments, "name", value_find_string(finding, "what", ""));
	return guest_command(guest, "block-dirty-bitmap-remove", arguments, NULL, NULL, fault);
}

static int remove_node(struct guest *guest, const struct value *finding, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_string(arguments, "node-name", value_find_string(finding, "what", ""));
	return guest_command(guest, "blockdev-del", arguments, NULL, NULL, fault);
}

static int remove_export(struct guest *guest, const struct value *finding, struct fault *fault)
{
	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(guest);

	return guest_nbd_end_export(guest, watch, value_find_string(finding, "what", ""), fault);
}

static void remove_from(void *arg, struct resident *resident)
{
	struct removal *removal = arg;
	const struct value *finding = removal->finding;
	const char *kind = value_find_string(finding, "kind", "");
	const char *run_dir = resident_run_dir(resident);
	struct guest *guest = resident_guest(resident);

	if (strcmp(run_dir, value_find_string(finding, "where", "")) != 0)
		return;
	if (strcmp(kind, "node") == 0 && is_moving(removal->doctor, run_dir))
		removal->result = fault_text(removal->fault, -EBUSY, "the guest moves");
	else if (strcmp(kind, "node") == 0)
		removal->result = remove_node(guest, finding, removal->fault);
	else if (strcmp(kind, "bitmap") == 0)
		removal->result = remove_bitmap(guest, finding, removal->fault);
	else
		removal->result = remove_export(guest, finding, removal->fault);
}

int doctor_fix_guest(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	struct removal removal = {doctor, finding, fault, 1};
	const char *owner = value_find_string(finding, "owner", "");

	if (*owner && doctor_is_living(doctor, owner))
		return fault_text(fault, -EBUSY, "the move %s is under way", owner);
	guests_each(doctor->params->guests, remove_from, &removal);
	return MIN(removal.result, 0);
}

/* --- tgtd ---------------------------------------------------------------------------------------
 */

static void look_at_names(struct doctor *doctor, struct migration *m, const char *kind,
	const char *member, const struct value *names)
{
	for (size_t i = 0; i < names->array.n_items; i++) {
		const char *name = names->array.items[i]->string;
		bool found = false;
		for (size_t j = 0; m->exports && j < m->exports->array.n_items; j++)
			found |= strcmp(name, value_find_string(
						      m->exports->array.items[j], member, "")) == 0;
		if (!found)
			doctor_add(doctor, kind, name, m->uuid, false,
				"the tgtd of the migration has it, and the migration has not made "
				"it; it goes when that tgtd ends");
	}
}

static void look_at_tgt(struct doctor *doctor, struct migration *m)
{
	struct value *targets CLEANUP_VALUE = NULL;
	struct value *accounts CLEANUP_VALUE = NULL;

	if (!m->tgt || tgt_list(m->tgt, &targets, &accounts) < 0)
		return;
	look_at_names(doctor, m, "export", "iqn", targets);
	look_at_names(doctor, m, "account", "user", accounts);
}

void doctor_look_at_exports(struct doctor *doctor)
{
	size_t n;
	struct migration **all CLEANUP_FREE = registry_all(&doctor->supervisor->registry, &n);

	for (size_t i = 0; i < n; i++) {
		struct migration *m CLEANUP_MIGRATION = all[i];
		/* One that is busy makes its exports, or ends them. */
		if (m->role != ROLE_RECEIVER || migration_enter(m, 0, NULL) < 0)
			continue;
		look_at_tgt(doctor, m);
		migration_leave(m);
	}
}
