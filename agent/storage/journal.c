/* SPDX-License-Identifier: Apache-2.0 */
/* The journal of image files: rows "vdi-file" of agent.db.
 *
 *	make:    row -> file -> VDI -> forget row
 *	remove:  row -> no VDI -> no file -> forget row
 *
 * Wherever it stops, the row is there, and the rule "the file stays if and only if a VDI names it"
 * leads to one of the two ends. */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/log.h"
#include "target/disk.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static struct value *new_detail(const struct image_entry *entry, bool is_shared)
{
	struct value *detail = value_new_struct();

	value_set_string(detail, "sr", entry->sr);
	value_set_string(detail, "location", entry->location);
	value_set_int(detail, "need_bytes", (int64_t)entry->need_bytes);
	value_set_bool(detail, "shared", is_shared);
	return detail;
}

int journal_record(const struct storage *storage, const struct image_entry *entry, int64_t *ret_id,
	struct fault *fault)
{
	bool is_shared = false;
	int64_t id = 0;
	int r = object_get_bool(storage->pool, "SR", entry->sr, "shared", &is_shared, fault);

	if (r < 0)
		return r;
	struct value *detail CLEANUP_VALUE = new_detail(entry, is_shared);
	r = resource_record(
		storage->agent, entry->owner, STORAGE_KIND, entry->path, detail, &id, fault);
	if (r < 0)
		return r;
	if (is_shared)
		r = hold_place(storage, entry->path, entry->need_bytes, fault);
	if (r < 0)
		journal_undo(storage, id, entry, r);
	else if (ret_id)
		*ret_id = id;
	return r;
}

void journal_forget(const struct storage *storage, int64_t id, const char *path)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	hold_lift(storage, path);
	if (resource_forget(storage->agent, id, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("STORAGE_JOURNAL_KEPT", "path=%s error=%s", path, text);
	}
}

/* -ENOENT while the directory is away (not mounted): then nothing is known of its files. */
static int check_directory(
	const struct storage *storage, const char *sr, const char *path, struct fault *fault)
{
	char *dir CLEANUP_FREE = xstrndup(path, (size_t)(strrchr(path, '/') - path));
	char *uuid CLEANUP_FREE = NULL;
	bool is_shared = false;
	struct stat st;
	int r = object_get_string(storage->pool, "SR", sr, "uuid", &uuid, fault);

	if (r == 0)
		r = object_get_bool(storage->pool, "SR", sr, "shared", &is_shared, fault);
	if (r == 0 && is_shared)
		return mark_check(dir, uuid, fault);
	if (r < 0 || stat(*dir ? dir : "/", &st) == 0 || errno != ENOENT)
		return r;
	return sr_fault(fault, -ENOENT, SR_FAILURE_UNAVAILABLE,
		"the directory %s of the SR is missing, so its file %s cannot be settled; mount it "
		"again, or forget the SR",
		dir, path);
}

/* No VDI of this pool names the file. That of a shared SR which is not (any more) of this pool is
 * for those to keep or remove who have the SR. */
static int remove_file(
	const struct storage *storage, const struct resource_row *row, struct fault *fault)
{
	const char *sr = value_find_string(row->detail, "sr", "");
	bool is_shared = value_find_bool(row->detail, "shared", false);
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = object_check(storage->pool, "SR", sr, &why);

	if (r < 0 && fault_is(&why, "HANDLE_INVALID"))
		return is_shared ? 0 : disk_remove(row->name, fault);
	if (r < 0 && fault)
		fault_move(fault, &why);
	if (r == 0)
		r = check_directory(storage, sr, row->name, fault);
	return r < 0 ? r : disk_remove(row->name, fault);
}

int journal_settle(
	const struct storage *storage, const struct resource_row *row, struct fault *fault)
{
	const char *sr = value_find_string(row->detail, "sr", "");
	const char *location = value_find_string(row->detail, "location", "");
	char *vdi CLEANUP_FREE = NULL;
	int r = storage_find_vdi(storage, sr, location, &vdi, fault);

	if (r < 0)
		return r;
	if (!vdi)
		r = remove_file(storage, row, fault);
	if (r < 0)
		return r;
	hold_lift(storage, row->name);
	log_info("STORAGE_SETTLED", "path=%s owner=%s file=%s", row->name, row->owner,
		vdi ? "kept" : "removed");
	return resource_forget(storage->agent, row->id, fault);
}

void journal_undo(
	const struct storage *storage, int64_t id, const struct image_entry *entry, int error)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *detail CLEANUP_VALUE = new_detail(entry, false);

	if (error == -EEXIST) {
		journal_forget(storage, id, entry->path);
		return;
	}
	struct resource_row row = {
		.id = id,
		.owner = (char *)entry->owner,
		.kind = (char *)STORAGE_KIND,
		.name = (char *)entry->path,
		.detail = detail,
	};
	if (journal_settle(storage, &row, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("STORAGE_UNDO_FAILED", "path=%s error=%s", entry->path, text);
	}
}

int journal_load(const struct storage *storage, const char *owner, struct journal *ret_journal,
	struct fault *fault)
{
	return resource_list(storage->agent, owner, STORAGE_KIND, &ret_journal->rows,
		&ret_journal->n_rows, fault);
}

void journal_clear(struct journal *journal)
{
	for (size_t i = 0; i < journal->n_rows; i++)
		resource_row_clear(&journal->rows[i]);
	free(journal->rows);
	journal->rows = NULL;
	journal->n_rows = 0;
}

const struct resource_row *journal_find(const struct journal *journal, const char *path)
{
	for (size_t i = 0; i < journal->n_rows; i++)
		if (strcmp(journal->rows[i].name, path) == 0)
			return &journal->rows[i];
	return NULL;
}

int sr_check_idle(const struct storage *storage, const char *sr, struct fault *fault)
{
	return journal_check_sr_idle(storage, sr, fault);
}

int journal_check_sr_idle(const struct storage *storage, const char *sr, struct fault *fault)
{
	struct journal journal CLEANUP_JOURNAL = {0};
	int r = journal_load(storage, NULL, &journal, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < journal.n_rows; i++) {
		const char *used = value_find_string(journal.rows[i].detail, "sr", "");
		if (strcmp(used, sr) == 0)
			return fault_set(
				fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "SR", sr, NULL);
	}
	return 0;
}

int storage_recover(const struct storage *storage, const char *owner, struct fault *fault)
{
	struct journal journal CLEANUP_JOURNAL = {0};
	int result = journal_load(storage, owner, &journal, fault);

	if (result < 0)
		return result;
	/* One SR that is away must not keep the others from being settled: the first failure is
	 * returned, after all were tried. */
	for (size_t i = 0; i < journal.n_rows; i++) {
		struct fault failed CLEANUP_FAULT = FAULT_INIT;
		int r = journal_settle(storage, &journal.rows[i], &failed);
		if (r < 0 && result == 0) {
			result = r;
			if (fault)
				fault_move(fault, &failed);
		}
	}
	return result;
}
