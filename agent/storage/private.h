/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of agent/storage share: faults, names, the journal of image files. */
#ifndef FERRY_AGENT_STORAGE_PRIVATE_H
#define FERRY_AGENT_STORAGE_PRIVATE_H

#include "agent/storage/storage.h"
#include "target/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* XenAPI's numbers of storage errors (XE_SR_ERRORCODES.xml of the storage manager). */
enum sr_failure {
	SR_FAILURE_BAD_CHARACTER = 2,
	SR_FAILURE_SCAN = 40,
	SR_FAILURE_IN_USE = 42, /* "The SR already exists" */
	SR_FAILURE_VDI_EXISTS = 43,
	SR_FAILURE_NO_SPACE = 44,
	SR_FAILURE_VDI_UNAVAILABLE = 46,
	SR_FAILURE_UNAVAILABLE = 47,
	SR_FAILURE_VDI_REMOVE = 64,
	SR_FAILURE_VDI_CREATE = 78,
	SR_FAILURE_VDI_SIZE = 79,
	SR_FAILURE_BAD_DIRECTORY = 91, /* "The device is not a valid path" */
	SR_FAILURE_NO_LOCATION = 94,
};

/* SR_BACKEND_FAILURE_<number> ["", text, ""]. Returns error. */
int sr_fault(struct fault *fault, int error, enum sr_failure number, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
#ifdef __clang_analyzer__ /* as in base/fault.h */
#define sr_fault(fault, error, ...)                                                                \
	((void)(sr_fault)(fault, error, __VA_ARGS__), fault_negative_(error))
#endif
/* Makes that of what a call to target/disk.h left in *fault; its error decides first: a full disk
 * is 44, a size that the file system cannot hold 79. Returns error. */
int sr_fault_from_disk(struct fault *fault, int error, enum sr_failure number);

/* Whether a directory or file name can be exported: tgtd cuts a path at ',' and its listing at a
 * newline. */
bool storage_name_is_safe(const char *name);

/* "<dir>/<location>", refused unless location is one safe file name. The caller frees *ret_path. */
int storage_image_path(const char *dir, const char *location, char **ret_path, struct fault *fault);

/* The VDI of the SR whose location is that file name. *ret_vdi is NULL when there is none; the
 * caller frees it. */
int storage_find_vdi(const struct storage *storage, const char *sr, const char *location,
	char **ret_vdi, struct fault *fault);

/* VDI.allowed_operations, a new array. */
struct value *storage_vdi_operations(void);

/* Adds bytes to SR.virtual_allocation. Called inside a transaction of pool.db. */
int sr_add_allocation(struct pool_db *pool, const char *sr, int64_t bytes, struct fault *fault);

/* storage_prepare_disk under a file name of the caller's choice: an empty image of that format, or
 * (IMAGE_RAW) a file into which one of any format is to be copied. */
int storage_prepare_image(const struct storage *storage, const char *owner, const char *sr,
	const char *location, enum image_format format, uint64_t size_bytes, uint64_t need_bytes,
	char **ret_path, struct fault *fault);

/* The directory, checked, of a device_config:location, with symbolic links resolved: it is there,
 * the daemon can write it, and no other PBD of this host than `pbd` (may be NULL) uses it. */
int sr_resolve_location(const struct storage *storage, const struct value *device_config,
	const char *pbd, char **ret_dir, struct fault *fault);
/* The last, by names only and without I/O: for transactions. */
int sr_check_unused(struct pool_db *pool, const char *host, const char *dir, const char *pbd,
	struct fault *fault);

/* --- Shared directories -------------------------------------------------------------------------
 */

/* SR_BACKEND_FAILURE_47 unless the directory has the mark of that SR. */
int mark_check(const char *dir, const char *uuid, struct fault *fault);
/* SR_BACKEND_FAILURE_42 if it has that of another. */
int mark_check_foreign(const char *dir, const char *uuid, struct fault *fault);
/* Journalled: mark_settle() follows when the SR is stored as shared, or is not to be. */
int mark_make(
	const struct storage *storage, const char *dir, const char *uuid, struct fault *fault);
/* Before the SR goes: mark_settle() removes its mark then. */
int mark_record(
	const struct storage *storage, const char *dir, const char *uuid, struct fault *fault);
/* The journalled mark of that SR goes unless the SR is there and shared; failures are logged. uuid
 * NULL: all, while nobody makes one. */
void mark_settle(const struct storage *storage, const char *uuid);

/* This host works on the file: others take it neither for a new image nor for an orphan. Placing it
 * again changes need_bytes. */
int hold_place(
	const struct storage *storage, const char *path, uint64_t need_bytes, struct fault *fault);
/* Fine when there is none. */
void hold_lift(const struct storage *storage, const char *path);

/* --- Journal ------------------------------------------------------------------------------------
 */

#define STORAGE_KIND "vdi-file"

/* One image file about to be made or removed. */
struct image_entry {
	const char *owner; /* migration, or "" */
	const char *sr;
	const char *location;
	const char *path;
	uint64_t need_bytes; /* space that a migration will yet fill */
};

int journal_record(const struct storage *storage, const struct image_entry *entry, int64_t *ret_id,
	struct fault *fault);
/* After the work is done: a failure leaves the row for storage_recover(), and is only logged. */
void journal_forget(const struct storage *storage, int64_t id, const char *path);
/* The rule of storage.h for one row: removes the file unless a VDI row names it, then the row. */
int journal_settle(
	const struct storage *storage, const struct resource_row *row, struct fault *fault);
/* The same for what journal_record has just recorded, after an operation that failed with error and
 * whose fault the caller returns: a failure is only logged. -EEXIST: the file is somebody else's
 * and stays. */
void journal_undo(
	const struct storage *storage, int64_t id, const struct image_entry *entry, int error);

/* resource_list() of this kind, as an owned list. */
struct journal {
	struct resource_row *rows;
	size_t n_rows;
};

/* owner NULL: all. */
int journal_load(const struct storage *storage, const char *owner, struct journal *ret_journal,
	struct fault *fault);
void journal_clear(struct journal *journal);
/* NULL when no row has that path. */
const struct resource_row *journal_find(const struct journal *journal, const char *path);
/* OTHER_OPERATION_IN_PROGRESS ["SR", sr] while a row belongs to the SR. */
int journal_check_sr_idle(const struct storage *storage, const char *sr, struct fault *fault);

#define CLEANUP_JOURNAL CLEANUP(journal_clear)

#endif
