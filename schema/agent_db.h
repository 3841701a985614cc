/* SPDX-License-Identifier: Apache-2.0 */
/* agent.db: what this host is in the middle of. Migrations and their disks, the journal of
 * resources, the extent log and the digests. SQLite, WAL, synchronous=FULL: what a call has
 * returned from survives a crash. All calls may block on the disk and may come from any thread. */
#ifndef FERRY_SCHEMA_AGENT_DB_H
#define FERRY_SCHEMA_AGENT_DB_H

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/value.h"
#include "schema/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct agent_db;

int agent_db_open(const char *path, struct agent_db **ret_db, struct fault *fault);
struct agent_db *agent_db_close(struct agent_db *db);

typedef int (*agent_db_fn)(struct agent_db *db, void *arg, struct fault *fault);
int agent_db_transaction(struct agent_db *db, agent_db_fn fn, void *arg, struct fault *fault);

/* --- Migrations ------------------------------------------------------------------------------ */

/* A migration is its uuid, role and state, and a document (value struct) that agent/migrate
 * defines: the plan, the peer, what was measured, the error. The state moves by compare-and-set
 * only. */
struct migration_row {
	char *uuid;
	enum migration_role role;
	enum migration_state state;
	struct value *document;
	int64_t created;  /* wall seconds */
	int64_t finished; /* 0 while under way */
};

void migration_row_clear(struct migration_row *row);

/* -EEXIST when the uuid is known. */
int migration_insert(struct agent_db *db, const struct migration_row *row, struct fault *fault);
/* 1 found, 0 not. */
int migration_load(
	struct agent_db *db, const char *uuid, struct migration_row *ret_row, struct fault *fault);
/* Newest first. unfinished_only: those whose finished is 0. The caller frees rows and their
 * content. */
int migration_list(struct agent_db *db, bool unfinished_only, struct migration_row **ret_rows,
	size_t *ret_n, struct fault *fault);
/* from -> to in one transaction, with the new document if not NULL, and one line in the move log.
 * `finished` is set when to is DONE, CANCELLED or FAILED. -ESTALE when the stored state is not
 * `from`. */
int migration_move(struct agent_db *db, const char *uuid, enum migration_state from,
	enum migration_state to, const char *event, const struct value *document,
	struct fault *fault);
int migration_save_document(
	struct agent_db *db, const char *uuid, const struct value *document, struct fault *fault);
/* *ret_moves: array of structs {at (datetime), from, to, event}, oldest first. */
int migration_moves(
	struct agent_db *db, const char *uuid, struct value **ret_moves, struct fault *fault);
/* Removes the row and all that hangs on it (log, digests, moves). -EBUSY while a resource of it is
 * recorded. Forgetting what is not there is fine. */
int migration_forget(struct agent_db *db, const char *uuid, struct fault *fault);

/* --- Resources: recorded before they are made, removed after they are gone
 * ------------------------ */

struct resource_row {
	int64_t id;  /* set by resource_record */
	char *owner; /* migration uuid, or "" for what belongs to none (a VDI being created) */
	char *kind;  /* "vdi-file", "tgtd", "export" ... */
	char *name;  /* path or name, unique per kind */
	struct value *detail; /* struct; may be NULL */
};

void resource_row_clear(struct resource_row *row);

/* Inserts it, or finds the row of that kind and name, whose detail becomes the given one if that is
 * not NULL; sets *ret_id (which may be NULL). -EEXIST when it is another owner's. */
int resource_record(struct agent_db *db, const char *owner, const char *kind, const char *name,
	const struct value *detail, int64_t *ret_id, struct fault *fault);
int resource_forget(struct agent_db *db, int64_t id, struct fault *fault);
int resource_forget_name(
	struct agent_db *db, const char *kind, const char *name, struct fault *fault);
/* It belongs to another from now on ("": to this host). */
int resource_give(struct agent_db *db, const char *kind, const char *name, const char *owner,
	struct fault *fault);
/* Newest first (the order of removal). owner or kind NULL: all. */
int resource_list(struct agent_db *db, const char *owner, const char *kind,
	struct resource_row **ret_rows, size_t *ret_n, struct fault *fault);

/* --- Extent log: what the receiver does not surely hold ------------------------------------------
 */

/* One set of bytes per (migration, disk), kept as coalesced rows: rows never touch or overlap.
 * disk: 0-based number in the plan. Offsets and lengths in bytes, multiples of 512. */
int extent_log_add(struct agent_db *db, const char *migration, unsigned disk,
	const struct extent *extents, size_t n, struct fault *fault);
/* Set difference. Call it only after the flush that followed the acknowledged writes (law 4). */
int extent_log_remove(struct agent_db *db, const char *migration, unsigned disk,
	const struct extent *extents, size_t n, struct fault *fault);
/* Up to max extents, ascending, as far as they lie at or after `from` (one that `from` cuts is
 * given from there on). */
int extent_log_read(struct agent_db *db, const char *migration, unsigned disk, uint64_t from,
	struct extent *extents, size_t max, size_t *ret_n, struct fault *fault);
int extent_log_total(struct agent_db *db, const char *migration, unsigned disk, uint64_t *ret_bytes,
	uint64_t *ret_rows, struct fault *fault);

/* --- Digests of what was sent
 * ---------------------------------------------------------------------- */

/* Spans of DIGEST_SPAN_CHUNKS digests of 16 bytes (one per chunk of the disk), one row each. A span
 * without a row is all zero: a chunk whose digest is 16 zero bytes holds only zeros. */
int digest_store(struct agent_db *db, const char *migration, unsigned disk, uint64_t span,
	const void *digests, size_t length, struct fault *fault);
/* 1 found (length bytes copied, which must match), 0 no row. */
int digest_load(struct agent_db *db, const char *migration, unsigned disk, uint64_t span,
	void *digests, size_t length, struct fault *fault);

/* --- What could not be read of a source, and is zero at the receiver ----------------------------
 */

struct unreadable_row {
	struct extent extent;
	int error; /* errno */
};

/* Takes the extent in; what it overlaps has the new error then. Rows of one error that touch become
 * one. */
int unreadable_add(struct agent_db *db, const char *migration, unsigned disk, struct extent extent,
	int error, struct fault *fault);
/* Set difference. */
int unreadable_remove(struct agent_db *db, const char *migration, unsigned disk,
	struct extent extent, struct fault *fault);
/* All of a disk, ascending. The caller frees them. */
int unreadable_list(struct agent_db *db, const char *migration, unsigned disk,
	struct unreadable_row **ret_rows, size_t *ret_n, struct fault *fault);
/* Of all disks; 0 of a migration that is not there. */
int unreadable_total(
	struct agent_db *db, const char *migration, uint64_t *ret_bytes, struct fault *fault);

DEFINE_CLEANUP(struct agent_db *, agent_db_close)
#define CLEANUP_AGENT_DB CLEANUP(cleanup_agent_db_close)

#endif
