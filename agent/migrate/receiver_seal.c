/* SPDX-License-Identifier: Apache-2.0 */
/* The seal: from here on nothing can write to the disks. For a guest that runs it is part of its
 * pause: what is not needed for that (ending tgtd) comes later. */
#include "agent/migrate/live.h"
#include "agent/migrate/peer.h"
#include "agent/migrate/receiver_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "target/export.h"

#include <errno.h>
#include <string.h>

/* --- The VM as it is now ------------------------------------------------------------------------
 */

static const char *const renewed[] = {"vm", "metrics", "vbds", "vifs", "snapshots"};

static int differs(const char *what, size_t i, const char *field, struct fault *fault)
{
	return fault_text(fault, -EINVAL,
		"seal: manifest: %s %zu has another %s than it had in Peer.prepare", what, i,
		field);
}

/* What the guest at the destination was started with stays as it was. */
static int check_devices(const struct value *before, const struct value *now, const char *list,
	const char *const *fields, size_t n_fields, struct fault *fault)
{
	const struct value *old = value_find(before, list);
	const struct value *new = value_find(now, list);
	size_t n_old = old ? old->array.n_items : 0;

	int r = receiver_check_list(now, list, fault);
	if (r < 0)
		return r;
	if (new->array.n_items != n_old)
		return fault_text(fault, -EINVAL,
			"seal: manifest: %zu %s instead of the %zu in Peer.prepare",
			new->array.n_items, list, n_old);
	for (size_t i = 0; i < n_old; i++)
		for (size_t f = 0; f < n_fields; f++)
			if (strcmp(value_find_string(old->array.items[i], fields[f], ""),
				    value_find_string(new->array.items[i], fields[f], "")) != 0)
				return differs(list, i, fields[f], fault);
	return 0;
}

static int check_disk_indexes(
	const struct value *before, const struct value *now, struct fault *fault)
{
	const struct value *old = value_find(before, "vbds");
	const struct value *new = value_find(now, "vbds");

	for (size_t i = 0; i < new->array.n_items; i++)
		if (peer_int(old->array.items[i], "disk", -1) !=
			peer_int(new->array.items[i], "disk", -1))
			return differs("vbds", i, "disk", fault);
	return 0;
}

static int check_vm(const struct value *before, const struct value *now, struct fault *fault)
{
	static const char *const texts[] = {"uuid"};
	static const char *const numbers[] = {"memory_static_max", "VCPUs_max"};

	if (!now || now->type != VALUE_STRUCT)
		return fault_text(fault, -EINVAL, "seal: manifest: vm must be a struct");
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (strcmp(value_find_string(before, texts[i], ""),
			    value_find_string(now, texts[i], "")) != 0)
			return differs("vm", 0, texts[i], fault);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (peer_int(before, numbers[i], 0) != peer_int(now, numbers[i], 0))
			return differs("vm", 0, numbers[i], fault);
	return 0;
}

/* Of a VM or a snapshot. */
static int check_one(const struct value *before, const struct value *now, struct fault *fault)
{
	static const char *const vbd_fields[] = {"userdevice", "type", "mode"};
	static const char *const vif_fields[] = {"device", "network", "MAC"};
	const struct value *metrics = value_find(now, "metrics");

	if (metrics && metrics->type != VALUE_STRUCT)
		return fault_text(fault, -EINVAL, "seal: manifest: metrics must be a struct");
	int r = check_vm(value_find(before, "vm"), value_find(now, "vm"), fault);
	if (r == 0)
		r = check_devices(before, now, "vbds", vbd_fields, ARRAY_SIZE(vbd_fields), fault);
	if (r == 0)
		r = check_devices(before, now, "vifs", vif_fields, ARRAY_SIZE(vif_fields), fault);
	return r < 0 ? r : check_disk_indexes(before, now, fault);
}

/* What they are to each other stays as it was. */
static int check_snapshots(const struct value *before, const struct value *now, struct fault *fault)
{
	static const char *const relations[] = {"parent", "memory"};
	const struct value *old = value_find(before, "snapshots");
	const struct value *new = value_find(now, "snapshots");

	if (!new)
		return 0;
	int r = receiver_check_snapshots(now, fault);
	if (r == 0 && new->array.n_items != (old ? old->array.n_items : 0))
		r = fault_text(fault, -EINVAL,
			"seal: manifest: there are %zu snapshots now, and other ones before",
			new->array.n_items);
	for (size_t i = 0; r == 0 && i < new->array.n_items; i++) {
		const struct value *was = old->array.items[i];
		const struct value *is = new->array.items[i];
		r = check_one(was, is, fault);
		for (size_t f = 0; r == 0 && f < ARRAY_SIZE(relations); f++)
			if (peer_int(was, relations[f], -1) != peer_int(is, relations[f], -1))
				r = differs("snapshots", i, relations[f], fault);
	}
	return r;
}

static int check_renewal(const struct value *before, const struct value *now, struct fault *fault)
{
	int r = check_one(before, now, fault);

	if (r == 0)
		r = check_snapshots(before, now, fault);
	return r < 0 ? r : receiver_check_size(now, fault);
}

static const char *power_state(const struct value *manifest)
{
	return value_find_string(value_find(manifest, "vm"), "power_state", "");
}

/* The guest may have ended at the source, which then moves the VM as a halted one: nothing is to
 * wait for its memory here. */
static int check_power(struct migration *m, const struct value *before, const struct value *now,
	bool *ret_ended, struct fault *fault)
{
	*ret_ended = live_is_wanted(m) && strcmp(power_state(now), "Halted") == 0;
	if (*ret_ended || strcmp(power_state(before), power_state(now)) == 0)
		return 0;
	return differs("vm", 0, "power_state", fault);
}

static int become_halted(struct migration *m, struct value *manifest, struct fault *fault)
{
	int r = receiver_end_incoming(m, fault);

	if (r < 0)
		return r;
	log_info("MIG-HALTED", "migration=%s the guest ended at the source", m->uuid);
	value_set_bool(manifest, "live", false);
	migration_set(m, "live", value_new_bool(false));
	return 0;
}

/* A VM that was renamed while it moved keeps its new name. */
static int renew_manifest(struct migration *m, const struct value *now, struct fault *fault)
{
	struct value *manifest CLEANUP_VALUE = migration_get(m, "manifest");

	if (!now || now->record.n_members == 0)
		return 0;
	bool ended = false;
	int r = check_renewal(manifest, now, fault);
	if (r == 0)
		r = check_power(m, manifest, now, &ended, fault);
	if (r == 0 && ended)
		r = become_halted(m, manifest, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(renewed); i++) {
		const struct value *value = value_find(now, renewed[i]);
		if (value)
			value_set(manifest, renewed[i], value_copy(value));
	}
	migration_set(m, "manifest", TAKE_PTR(manifest));
	return 0;
}

/* --- The disks ----------------------------------------------------------------------------------
 */

static bool is_still(const struct value *disks, size_t i)
{
	return value_find_bool(disks->array.items[i], "still", false);
}

static int settle_disk(
	struct migration *m, const struct value *disks, size_t i, struct fault *fault)
{
	const struct value *disk = disks->array.items[i];
	int r = export_settle(value_find_string(disk, "path", ""),
		&(struct export_identity){
			.device = (uint64_t)value_find_int(disk, "device", 0),
			.inode = (uint64_t)value_find_int(disk, "inode", 0),
			.size_bytes = (uint64_t)value_find_int(disk, "size", 0),
		},
		fault);

	if (r < 0)
		log_error("MIG-SETTLE", "migration=%s disk=%zu", m->uuid, i);
	return r;
}

static int settle_disks(struct migration *m, const struct value *disks, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		if (!m->still_settled || !is_still(disks, i))
			r = settle_disk(m, disks, i, fault);
	return r;
}

static int withdraw_export(struct migration *m, size_t i, struct fault *fault)
{
	const char *user = value_find_string(m->exports->array.items[i], "user", "");

	return export_withdraw(m->tgt, (uint32_t)i + 1, user, fault);
}

static int withdraw_exports(struct migration *m, const struct value *disks, struct fault *fault)
{
	for (size_t i = 0; m->tgt && m->exports && i < m->exports->array.n_items; i++) {
		int r = m->still_settled && is_still(disks, i) ? 0 : withdraw_export(m, i, fault);
		if (r < 0)
			return r;
	}
	receiver_close_disk_door(m);
	/* What is left is a tgtd without a disk: it ends when nobody waits for it. */
	m->exports = value_free(m->exports);
	return 0;
}

int receiver_settle_still(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	int r = 0;

	if (m->still_settled || !m->tgt || !m->exports)
		return 0;
	for (size_t i = 0; r == 0 && i < m->exports->array.n_items; i++) {
		if (!is_still(disks, i))
			continue;
		m->still_settled = true;
		r = withdraw_export(m, i, fault);
		if (r == 0)
			r = settle_disk(m, disks, i, fault);
	}
	/* As in receiver_seal. */
	return r < 0 ? receiver_give_up(m, r, fault) : 0;
}

int receiver_seal(struct migration *m, const struct value *manifest, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");

	if (migration_state(m) == STATE_SEALED)
		return 0;
	if (migration_state(m) != STATE_RECEIVING)
		return receiver_refuse(m, "seal", fault);
	int r = renew_manifest(m, manifest, fault);
	if (r < 0)
		return r;
	/* The guest is paused: who looks at the migration learns of it a little later. */
	m->quiet = live_is_wanted(m);
	m->sealed_usec = clock_now_usec();
	r = withdraw_exports(m, disks, fault);
	if (r == 0)
		r = settle_disks(m, disks, fault);
	if (r == 0)
		r = migration_post(m, EVENT_SEALED, fault);
	/* Not to be asked again: the kernel tells of a failed write only once. */
	return r < 0 ? receiver_give_up(m, r, fault) : 0;
}
