/* SPDX-License-Identifier: Apache-2.0 */
/* pool.db: the XenAPI objects of a pool, the events that their changes make, and the commits of
 * incoming migrations.
 *
 * Objects are addressed by class name ("VM") and ref ("OpaqueRef:..."), and read and written as
 * value trees: strings for STRING, ENUM and REF fields, ints, bools, doubles, datetimes, arrays for
 * sets, structs for maps. All calls may block on the disk and may come from any thread; each is one
 * transaction of its own unless it runs inside pool_db_transaction(). Negative results come with a
 * fault: HANDLE_INVALID [class, ref], UUID_INVALID [class, uuid], FIELD_TYPE_ERROR [field],
 * INVALID_VALUE [field, value], MAP_DUPLICATE_KEY [class, field, uuid, key],
 * DB_UNIQUENESS_CONSTRAINT_VIOLATION [class, "uuid", uuid], INTERNAL_ERROR [text] (an unknown class
 * or field too). */
#ifndef FERRY_SCHEMA_POOL_DB_H
#define FERRY_SCHEMA_POOL_DB_H

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/value.h"
#include "schema/db_remote.h"

#include <stdbool.h>
#include <stdint.h>

struct pool_db;

/* Opens or makes the database at path, brings it to the present version (numbered, forward-only)
 * and adds the columns of fields that the class list has gained. -EEXIST when it is newer than this
 * program. */
int pool_db_open(const char *path, struct pool_db **ret_db, struct fault *fault);
struct pool_db *pool_db_close(struct pool_db *db);

/* The database of a pool whose coordinator is another host, with all that this header offers but
 * events and their listener. Sends nothing yet. Calls may block for the transport's patience, and
 * fail with its faults. */
struct pool_db *pool_db_open_remote(const struct db_transport *transport);
/* On the coordinator: opens the database for other hosts; before other threads use it. */
int pool_db_serve(struct pool_db *db, struct fault *fault);
/* One message of the transport of host `client`. Blocks for other writers, some seconds at most. */
int pool_db_answer(struct pool_db *db, const char *client, const char *request, char **ret_answer,
	struct fault *fault);

/* Another host is about to get the database: until pool_db_let_go nobody writes. On the
 * coordinator.
 */
int pool_db_hold(struct pool_db *db, struct fault *fault);
/* It has it: nothing can be written here any more, also after letting go. */
void pool_db_retire(struct pool_db *db);
void pool_db_let_go(struct pool_db *db);

/* Runs fn in one transaction (IMMEDIATE; a nested call joins the outer one, and when it fails
 * undoes its own writes only): committed when it returns 0 or more, rolled back when negative.
 * Durable (synchronous=FULL) when this returns. Holds the database for its length: fn does no other
 * I/O. Returns what fn returned. */
typedef int (*pool_db_fn)(struct pool_db *db, void *arg, struct fault *fault);
int pool_db_transaction(struct pool_db *db, pool_db_fn fn, void *arg, struct fault *fault);

/* Objects. `fields` is a struct of the fields to set (others get the default of the class list; a
 * missing "uuid" is generated). Derived fields (the other end of a relation, as SR.VDIs) cannot be
 * written. fields and ret_ref may be NULL; the caller frees *ret_ref. */
int object_create(struct pool_db *db, const char *class, const struct value *fields, char **ret_ref,
	struct fault *fault);
/* The same with a ref of the caller's, for objects that come with their refs from another pool: a
 * ref that is there already is DB_UNIQUENESS_CONSTRAINT_VIOLATION [class, "ref", ref]. */
int object_restore(struct pool_db *db, const char *class, const char *ref,
	const struct value *fields, struct fault *fault);
/* Refused with an INTERNAL_ERROR that names the other object while an owning relation (VBD.VM,
 * VDI.SR, VBD.VDI, PBD.SR, VIF.VM, VIF.network ...) points at it; other references to it become
 * NULL. */
int object_destroy(struct pool_db *db, const char *class, const char *ref, struct fault *fault);
/* Whether it is surely there: also false when the database cannot be asked. */
bool object_exists(struct pool_db *db, const char *class, const char *ref);
/* 0, HANDLE_INVALID, or why the database could not be asked. */
int object_check(struct pool_db *db, const char *class, const char *ref, struct fault *fault);

int object_get_record(struct pool_db *db, const char *class, const char *ref,
	struct value **ret_record, struct fault *fault);
int object_get_field(struct pool_db *db, const char *class, const char *ref, const char *field,
	struct value **ret_value, struct fault *fault);
/* As object_get_field for fields stored as text; the caller frees *ret_text. */
int object_get_string(struct pool_db *db, const char *class, const char *ref, const char *field,
	char **ret_text, struct fault *fault);
int object_get_int(struct pool_db *db, const char *class, const char *ref, const char *field,
	int64_t *ret_value, struct fault *fault);
int object_get_bool(struct pool_db *db, const char *class, const char *ref, const char *field,
	bool *ret_value, struct fault *fault);

int object_set_field(struct pool_db *db, const char *class, const char *ref, const char *field,
	const struct value *value, struct fault *fault);
/* Several fields at once: one change, one event. */
int object_set_fields(struct pool_db *db, const char *class, const char *ref,
	const struct value *fields, struct fault *fault);
/* add_to_X (MAP_DUPLICATE_KEY if present), remove_from_X (absent is fine), set one key. */
int object_map_add(struct pool_db *db, const char *class, const char *ref, const char *field,
	const char *key, const char *value, struct fault *fault);
int object_map_set(struct pool_db *db, const char *class, const char *ref, const char *field,
	const char *key, const char *value, struct fault *fault);
int object_map_remove(struct pool_db *db, const char *class, const char *ref, const char *field,
	const char *key, struct fault *fault);
/* add_X / remove_X of a set of strings; idempotent. */
int object_set_add(struct pool_db *db, const char *class, const char *ref, const char *field,
	const char *item, struct fault *fault);
int object_set_remove(struct pool_db *db, const char *class, const char *ref, const char *field,
	const char *item, struct fault *fault);

/* *ret_refs: array of refs. */
int object_get_all(
	struct pool_db *db, const char *class, struct value **ret_refs, struct fault *fault);
/* *ret_records: struct of ref -> record. */
int object_get_all_records(
	struct pool_db *db, const char *class, struct value **ret_records, struct fault *fault);
int object_get_by_uuid(struct pool_db *db, const char *class, const char *uuid, char **ret_ref,
	struct fault *fault);
int object_get_by_name_label(struct pool_db *db, const char *class, const char *label,
	struct value **ret_refs, struct fault *fault);
/* Refs of the objects whose stored (not derived) text field equals value, in order of creation. */
int object_find(struct pool_db *db, const char *class, const char *field, const char *value,
	struct value **ret_refs, struct fault *fault);

/* What another pool, a newer one, knows of the object and this program does not: text in the
 * caller's form, or NULL for nothing. It goes with the object, and is part of no record and no
 * event. INTERNAL_ERROR when there is too much. The caller frees *ret_text. */
#define UNKNOWN_MAX_BYTES 65536
int object_get_unknown(struct pool_db *db, const char *class, const char *ref, char **ret_text,
	struct fault *fault);
int object_set_unknown(struct pool_db *db, const char *class, const char *ref, const char *text,
	struct fault *fault);

/* Events. A change of an object takes the next generation of one counter that never goes back, also
 * over restarts; a relation's change touches the object at its other end too. */
uint64_t pool_db_generation(struct pool_db *db);
/* Touches an object without changing it (event.inject); *ret_before: the generation before it. */
int pool_db_touch(struct pool_db *db, const char *class, const char *ref, uint64_t *ret_before,
	struct fault *fault);
struct event_filter {
	const char *class; /* exact name of the class list, or NULL for all */
	const char *ref;   /* one object, or NULL */
};
/* What changed after generation `since` (0: everything exists anew), as contract section 4.1 wants
 * it: *ret_events: array of structs id, timestamp "0.0", class (lower case), operation, ref,
 * snapshot (not for del), one per object. *ret_generation: what to ask for next. */
int pool_db_events(struct pool_db *db, uint64_t since, const struct event_filter *filters,
	size_t n_filters, struct value **ret_events, uint64_t *ret_generation, struct fault *fault);
/* Struct of lower-case class -> VALUE_I4 count of rows, for all classes. */
int pool_db_counts(struct pool_db *db, struct value **ret_counts, struct fault *fault);
/* Called after each commit that changed objects, outside any lock, from the thread that committed.
 * One listener; it must not block. A call that has begun may still run when it has been replaced.
 */
void pool_db_listen(struct pool_db *db, void (*changed)(void *arg, uint64_t generation), void *arg);

/* Users: name, password (a yescrypt hash) and the name of a role; not objects. Sets the password; a
 * user that is not there yet is made, as a pool-admin. */
int pool_db_set_user(
	struct pool_db *db, const char *name, const char *password_hash, struct fault *fault);
/* *ret_hash NULL when there is no such user. */
int pool_db_get_user(struct pool_db *db, const char *name, char **ret_hash, struct fault *fault);
/* NULL when there is no such user. */
int pool_db_get_user_role(
	struct pool_db *db, const char *name, char **ret_role, struct fault *fault);
/* -ENOENT when there is no such user. The name of the role is the caller's to check. */
int pool_db_set_user_role(
	struct pool_db *db, const char *name, const char *role, struct fault *fault);
int pool_db_remove_user(struct pool_db *db, const char *name, struct fault *fault);
/* Struct of name -> struct of password_hash and role. */
int pool_db_list_users(struct pool_db *db, struct value **ret_users, struct fault *fault);

/* Pools of several hosts: how a host is reached and known. All strings owned. */
struct host_link {
	char *host; /* ref */
	char *url;
	char *fingerprint; /* of its certificate */
	char *secret;      /* shared by it and the coordinator; "" for the coordinator itself */
};

void host_link_clear(struct host_link *link);
int host_link_set(struct pool_db *db, const struct host_link *link, struct fault *fault);
int host_link_remove(struct pool_db *db, const char *host, struct fault *fault);
/* 1 found, 0 not. */
int host_link_get(
	struct pool_db *db, const char *host, struct host_link *ret_link, struct fault *fault);
int host_link_list(
	struct pool_db *db, struct host_link **ret_links, size_t *ret_n, struct fault *fault);
void host_links_free(struct host_link *links, size_t n);

/* Counts the coordinators that the pool has had: each that takes over adds one. */
int pool_db_get_term(struct pool_db *db, int64_t *ret_term, struct fault *fault);
int pool_db_set_term(struct pool_db *db, int64_t term, struct fault *fault);

/* From a copy of a pool.db that is not in use; NULL when there is no such user. The caller frees
 * both. */
int pool_copy_find_user(
	const char *path, const char *name, char **ret_hash, char **ret_role, struct fault *fault);

/* A host between two pools: bundle NULL: it may join with that secret; else it has left, and that
 * is what it takes along. find: 1 found (the caller frees *ret_bundle, which may be NULL), 0 not.
 */
int host_departure_record(struct pool_db *db, const char *host, const char *secret,
	const char *bundle, struct fault *fault);
int host_departure_forget(
	struct pool_db *db, const char *host, const char *secret, struct fault *fault);
int host_departure_find(struct pool_db *db, const char *host, const char *secret, char **ret_bundle,
	struct fault *fault);

/* The decision about an incoming migration, one row per migration, never changed once made.
 * decide: inserts it unless one exists; *ret_committed / *ret_vm_ref tell the decision that holds
 * afterwards (*ret_vm_ref is NULL for an aborted one; the caller frees it). Called inside the
 * transaction that imports the VM. find: 1 when decided, 0 when not. */
int commit_decide(struct pool_db *db, const char *migration_uuid, bool commit, const char *vm_ref,
	bool *ret_committed, char **ret_vm_ref, struct fault *fault);
int commit_find(struct pool_db *db, const char *migration_uuid, bool *ret_committed,
	char **ret_vm_ref, int64_t *ret_decided_at, struct fault *fault);
/* Those that were decided before: struct of migration -> committed (bool). */
int commit_list(struct pool_db *db, int64_t decided_before, struct value **ret_commits,
	struct fault *fault);
/* Only of a migration that nobody can ask about any more. */
int commit_forget(struct pool_db *db, const char *migration_uuid, struct fault *fault);

DEFINE_CLEANUP(struct pool_db *, pool_db_close)
#define CLEANUP_POOL_DB   CLEANUP(cleanup_pool_db_close)
#define CLEANUP_HOST_LINK CLEANUP(host_link_clear)

#endif
