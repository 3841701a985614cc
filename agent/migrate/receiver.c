/* SPDX-License-Identifier: Apache-2.0 */
/* Up to the seal: disks and their exports. */
#include "agent/migrate/receiver_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/export.h"

#include <errno.h>
#include <string.h>

#define IQN_PREFIX    "iqn.2026-11.org.ferry:"
#define SECRET_LENGTH 32
#define TGT_KIND      "tgtd" /* of resources */
#define LOOPBACK      "127.0.0.1"
/* Of one sender at a time: two for each disk while it is copied, one later. What is more are those
 * of a sender that was cut off, which end when their time is up. */
#define LINKS_BASE     64
#define LINKS_PER_DISK 2
/* tgtd 1.0.85 serves nobody else, and spins, while an answer does not go out. Answers to a sender
 * are short: it never reads a disk. */
#define UNREAD_USEC (3 * USEC_PER_SEC)

/* The folder of a migration's tgtd: short, because a socket's path has 107 characters. */
static char *tgt_dir(const struct migration *m)
{
	return xasprintf("%s/t%.13s", m->params->run_dir, m->uuid);
}

static int forget_tgt_row(struct migration *m, const struct resource_row *row, struct fault *fault)
{
	int r = tgt_forget_run_dir(row->name);

	if (r == 0)
		return resource_forget(m->params->storage->agent, row->id, fault);
	log_warn("TGT-LEFTOVER", "migration=%s dir=%s error=%s", m->uuid, row->name, strerror(-r));
	return fault_errno(fault, r, "removing what tgtd left in %s", row->name);
}

/* What is still on its way through the door gets nowhere, nor was it acknowledged. */
void receiver_close_disk_door(struct migration *m)
{
	if (m->disk_door)
		tunnel_close_door(m->params->tunnel, m->disk_door);
	free(m->disk_door);
	m->disk_door = NULL;
}

/* Stops tgtd and removes what is recorded of it and of those before it. */
int receiver_withdraw(struct migration *m, struct fault *fault)
{
	struct resource_row *rows = NULL;
	size_t n = 0;

	receiver_close_disk_door(m);
	m->still_settled = false;
	m->tgt = tgt_stop(m->tgt);
	m->exports = value_free(m->exports);
	int r = resource_list(m->params->storage->agent, m->uuid, TGT_KIND, &rows, &n, fault);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = forget_tgt_row(m, &rows[i], fault);
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}

static void tgt_lost(void *arg, const char *reason)
{
	log_warn("TGT-LOST", "migration=%s reason=%s", (const char *)arg, reason);
}

static int start_tgt(struct migration *m, const struct value *disks, struct fault *fault)
{
	char *dir CLEANUP_FREE = tgt_dir(m);
	const char **paths CLEANUP_FREE = xcalloc(disks->array.n_items + 1, sizeof(*paths));

	for (size_t i = 0; i < disks->array.n_items; i++)
		paths[i] = value_find_string(disks->array.items[i], "path", "");
	int r = resource_record(
		m->params->storage->agent, m->uuid, TGT_KIND, dir, NULL, NULL, fault);
	if (r < 0)
		return r;
	r = tgt_forget_run_dir(dir);
	if (r < 0)
		return fault_errno(fault, r, "removing what an earlier tgtd left in %s", dir);
	return tgt_start(
		&(struct tgt_params){
			.program = m->params->tgtd,
			.run_dir = dir,
			.address = m->params->plain_data ? m->params->data_address : LOOPBACK,
			.image_dirs = paths,
			.n_threads = m->params->tgtd_threads,
			.lost = tgt_lost,
			.arg = m->uuid,
		},
		&m->tgt, fault);
}

/* *ret_secret: of the door, which leads to tgtd; NULL when senders speak to tgtd itself. */
static int open_disk_door(
	struct migration *m, size_t n_disks, char **ret_secret, struct fault *fault)
{
	*ret_secret = NULL;
	if (m->params->plain_data)
		return 0;
	if (!m->params->tunnel)
		return fault_text(fault, -EOPNOTSUPP, "this agent has no data port for disks");
	char *name CLEANUP_FREE = xasprintf("%s/disks", m->uuid);
	char *secret CLEANUP_FREE = secret_new(SECRET_LENGTH);
	const struct tunnel_door door = {
		.name = name,
		.secret = secret,
		.port = tgt_port(m->tgt),
		.max_links = LINKS_BASE + LINKS_PER_DISK * (unsigned)n_disks,
		.unread_usec = UNREAD_USEC,
	};
	int r = tunnel_open_door(m->params->tunnel, &door, fault);
	if (r < 0)
		return r;
	m->disk_door = TAKE_PTR(name);
	*ret_secret = TAKE_PTR(secret);
	return 0;
}

/* "0123456789abcdef" of the uuid: hex digits only, for names with a narrow alphabet. */
static char *short_id(const char *uuid)
{
	return xasprintf("%.8s%.4s%.4s", uuid, uuid + 9, uuid + 14);
}

/* Once data may have been sent, another file under the same name holds none of it. */
static int check_same_file(struct migration *m, size_t index, const struct value *disk,
	const struct export_identity *identity, struct fault *fault)
{
	if (migration_state(m) == STATE_ALLOCATING ||
		value_find_int(disk, "inode", 0) == (int64_t)identity->inode)
		return 0;
	return fault_text(fault, -ESTALE,
		"disk %zu at the destination: %s is not the file that was made for it: somebody "
		"replaced it",
		index, value_find_string(disk, "path", ""));
}

/* Where the sender goes: the door of the data port, or tgtd itself. */
static void set_way(struct migration *m, const char *door_secret, struct value *export)
{
	bool is_plain = m->params->plain_data;

	value_set_string(export, "address", m->params->data_address);
	value_set_int(export, "port", is_plain ? tgt_port(m->tgt) : tunnel_port(m->params->tunnel));
	if (is_plain)
		return;
	value_set_string(export, "door", m->disk_door);
	value_set_string(export, "door_secret", door_secret);
}

static int add_export(struct migration *m, size_t index, struct value *disk, int64_t generation,
	const char *door_secret, struct value *ret_exports, struct fault *fault)
{
	char *id CLEANUP_FREE = short_id(m->uuid);
	char *iqn CLEANUP_FREE =
		xasprintf(IQN_PREFIX "%s.d%zu.g%lld", m->uuid, index, (long long)generation);
	char *initiator CLEANUP_FREE = xasprintf(IQN_PREFIX "sender.%s", m->uuid);
	char *user CLEANUP_FREE = xasprintf("d%zu.%s", index, id);
	char *secret CLEANUP_FREE = secret_new(SECRET_LENGTH);
	char *serial CLEANUP_FREE = xasprintf("%s-d%zu-g%lld", id, index, (long long)generation);
	struct export_identity identity;

	int r = export_add(m->tgt, (uint32_t)index + 1,
		&(struct export_params){
			.iqn = iqn,
			.path = value_find_string(disk, "path", ""),
			.initiator = initiator,
			.user = user,
			.secret = secret,
			.serial = serial,
			.size_bytes = (uint64_t)value_find_int(disk, "size", 0),
		},
		&identity, fault);
	if (r == 0)
		r = check_same_file(m, index, disk, &identity, fault);
	if (r < 0)
		return r;
	value_set_int(disk, "device", (int64_t)identity.device);
	value_set_int(disk, "inode", (int64_t)identity.inode);
	struct value *export = value_new_struct();
	set_way(m, door_secret, export);
	value_set_string(export, "iqn", iqn);
	value_set_string(export, "initiator", initiator);
	value_set_string(export, "user", user);
	value_set_string(export, "secret", secret);
	value_set_string(export, "serial", serial);
	value_set_int(export, "size", value_find_int(disk, "size", 0));
	value_append(ret_exports, export);
	return 0;
}

static int64_t next_generation(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	int64_t generation = value_find_int(m->document, "generation", 0) + 1;
	value_set_int(m->document, "generation", generation);
	return generation;
}

static int make_exports(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	struct value *exports CLEANUP_VALUE = value_new_array();
	int64_t generation = next_generation(m);
	char *door_secret CLEANUP_FREE = NULL;

	int r = migration_save(m, fault); /* A generation is used once, whatever happens. */
	if (r == 0 && disks->array.n_items)
		r = start_tgt(m, disks, fault);
	if (r == 0 && disks->array.n_items)
		r = open_disk_door(m, disks->array.n_items, &door_secret, fault);
	for (size_t i = 0; r == 0 && i < disks->array.n_items; i++)
		r = add_export(
			m, i, disks->array.items[i], generation, door_secret, exports, fault);
	if (r == 0) {
		migration_set(m, "disks", value_copy(disks));
		r = migration_save(m, fault);
	}
	if (r < 0) {
		receiver_withdraw(m, NULL);
		return r;
	}
	m->exports = TAKE_PTR(exports);
	return 0;
}

static int make_disks(struct migration *m, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");

	for (size_t i = 0; i < disks->array.n_items; i++) {
		struct value *disk = disks->array.items[i];
		char *location CLEANUP_FREE = NULL;
		char *path CLEANUP_FREE = NULL;
		int r = storage_prepare_disk(m->params->storage, m->uuid,
			value_find_string(disk, "sr", ""), value_find_string(disk, "uuid", ""),
			(uint64_t)value_find_int(disk, "size", 0),
			(uint64_t)value_find_int(disk, "allocated", 0), &location, &path, fault);
		if (r < 0)
			return r;
		value_set_string(disk, "location", location);
		value_set_string(disk, "path", path);
	}
	migration_set(m, "disks", TAKE_PTR(disks));
	return migration_save(m, fault);
}

int receiver_allocate(struct migration *m, struct fault *fault)
{
	int r = make_disks(m, fault);

	if (r == 0)
		r = make_exports(m, fault);
	if (r == 0)
		r = migration_post(m, EVENT_PREPARED, fault);
	return r < 0 ? receiver_give_up(m, r, fault) : 0;
}

int receiver_exports(struct migration *m, struct value **ret_exports, struct fault *fault)
{
	if (migration_state(m) != STATE_RECEIVING)
		return receiver_refuse(m, "export", fault);
	if (!m->exports || m->still_settled || (m->tgt && tgt_is_lost(m->tgt))) {
		receiver_withdraw(m, NULL);
		int r = make_exports(m, fault);
		if (r < 0)
			return r;
	}
	*ret_exports = value_copy(m->exports);
	return 0;
}
