/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's database: marks, sessions and decisions of migrations that nobody works on. Its
 * coordinator looks, for all hosts. */
#include "agent/migrate/copies_internal.h"
#include "agent/migrate/doctor_internal.h"
#include "agent/vm/family.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define SESSION_KEY     "ferry:migration" /* supervisor_session.c */
#define SECONDS_PER_DAY 86400

static bool is_coordinator(struct doctor *doctor)
{
	struct value *pools CLEANUP_VALUE = NULL;

	if (object_get_all_records(doctor->params->storage->pool, "pool", &pools, NULL) < 0 ||
		pools->record.n_members == 0)
		return false;
	return strcmp(value_find_string(pools->record.members[0].value, "master", ""),
		       doctor->params->storage->host_ref) == 0;
}

/* Objects of the migrations that have not ended, of all hosts: struct of ref -> record. */
static struct value *list_moves(struct doctor *doctor)
{
	struct value *records CLEANUP_VALUE = NULL;
	struct value *moves = value_new_struct();

	if (object_get_all_records(doctor->params->storage->pool, "migration", &records, NULL) < 0)
		return value_free(moves);
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		const struct value *finished = value_find(member->value, "finished");
		if (finished && finished->integer == 0)
			value_set(moves, member->name, value_copy(member->value));
	}
	return moves;
}

/* Whether some host of the pool works on it. */
static bool is_worked_on(struct doctor *doctor, const struct value *moves, const char *migration)
{
	for (size_t i = 0; i < moves->record.n_members; i++)
		if (strcmp(value_find_string(moves->record.members[i].value, "uuid", ""),
			    migration) == 0)
			return true;
	return doctor_is_living(doctor, migration);
}

/* --- Marks --------------------------------------------------------------------------------------
 */

static bool is_of_a_move(const char *operation)
{
	return strcmp(operation, "migrate_send") == 0 || strcmp(operation, "pool_migrate") == 0 ||
	       strcmp(operation, "mirror") == 0;
}

static bool is_of_a_copy(const char *operation)
{
	return vm_operation_is_a_copy(operation) || strcmp(operation, COPIES_REPLACED) == 0;
}

/* The key is the task that works on it, or names the migration. */
static bool is_held(struct doctor *doctor, const struct value *moves, const char *key)
{
	const char *uuid =
		strncmp(key, REF_PREFIX, strlen(REF_PREFIX)) == 0 ? key + strlen(REF_PREFIX) : key;

	if (doctor_task_is_pending(doctor, key) || is_worked_on(doctor, moves, uuid))
		return true;
	/* A task that ended before its migration did. */
	for (size_t i = 0; i < moves->record.n_members; i++) {
		const struct value *record = moves->record.members[i].value;
		struct value *config CLEANUP_VALUE = NULL;
		if (object_get_field(doctor->params->storage->pool, "task", key, "other_config",
			    &config, NULL) == 0 &&
			strcmp(value_find_string(config, "ferry:migration", ""),
				value_find_string(record, "uuid", "")) == 0)
			return true;
	}
	return false;
}

/* What holds nobody knows, as long as a migration of the class's object is under way; a snapshot
 * moves with its VM. */
static bool may_be_held(
	struct doctor *doctor, const struct value *moves, const char *class, const char *ref)
{
	struct pool_db *pool = doctor->params->storage->pool;

	for (size_t i = 0; i < moves->record.n_members; i++) {
		const struct value *record = moves->record.members[i].value;
		if (strcmp(value_find_string(record, "role", ""), "sender") == 0 &&
			(strcmp(class, "VDI") == 0 ||
				vm_is_family(pool, value_find_string(record, "VM", ""), ref)))
			return true;
	}
	return false;
}

static void look_at_marks(struct doctor *doctor, const struct value *moves, const char *class,
	const char *ref, const struct value *record)
{
	const struct value *marks = value_find(record, "current_operations");

	for (size_t i = 0; marks && i < marks->record.n_members; i++) {
		const struct value_member *mark = &marks->record.members[i];
		const char *operation = value_string(mark->value, "");
		bool is_move = is_of_a_move(operation);
		bool is_fixable = is_move || is_of_a_copy(operation);
		if (is_held(doctor, moves, mark->name) ||
			(is_move && may_be_held(doctor, moves, class, ref)))
			continue;
		char *what CLEANUP_FREE = xasprintf("%s %s: %s by %s", class,
			value_find_string(record, "uuid", ""), operation, mark->name);
		struct value *finding = doctor_add(doctor, "mark", what, "pool.db", is_fixable,
			"neither that task nor a migration is under way%s",
			is_fixable ? "" : "; the next start of the agent takes it away");
		value_set_string(finding, "class", class);
		value_set_string(finding, "ref", ref);
		value_set_string(finding, "key", mark->name);
	}
}

static void look_at_class(struct doctor *doctor, const struct value *moves, const char *class)
{
	struct value *records CLEANUP_VALUE = NULL;

	if (object_get_all_records(doctor->params->storage->pool, class, &records, NULL) < 0)
		return;
	for (size_t i = 0; i < records->record.n_members; i++)
		look_at_marks(doctor, moves, class, records->record.members[i].name,
			records->record.members[i].value);
}

struct unmark {
	struct doctor *doctor;
	const struct value *finding;
};

static int unmark(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct unmark *unmark = arg;
	const char *class = value_find_string(unmark->finding, "class", "");
	const char *ref = value_find_string(unmark->finding, "ref", "");
	const char *key = value_find_string(unmark->finding, "key", "");

	if (doctor_task_is_pending(unmark->doctor, key))
		return fault_text(fault, -EBUSY, "the task %s runs", key);
	if (strcmp(class, "VM") == 0)
		return vm_forget_operation(pool, ref, key, fault);
	return object_exists(pool, class, ref)
		       ? object_map_remove(pool, class, ref, "current_operations", key, fault)
		       : 0;
}

int doctor_fix_mark(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	struct unmark arg = {doctor, finding};

	return pool_db_transaction(doctor->params->storage->pool, unmark, &arg, fault);
}

/* --- Sessions -----------------------------------------------------------------------------------
 * One whose migration was decided is how its sender learns what it was, however late it asks. One
 * whose migration never began, or is not known, is nobody's.
 */

static void look_at_session(struct doctor *doctor, const struct value *moves, const char *ref,
	const struct value *record)
{
	const struct value *config = value_find(record, "other_config");

	if (!value_find(config, SESSION_KEY))
		return;
	for (size_t i = 0; i < config->record.n_members; i++) {
		const char *migration = config->record.members[i].name;
		bool committed;
		if (strcmp(migration, SESSION_KEY) == 0 || is_worked_on(doctor, moves, migration) ||
			commit_find(doctor->params->storage->pool, migration, &committed, NULL,
				NULL, NULL) != 0)
			continue;
		struct value *finding = doctor_add(doctor, "session",
			value_find_string(record, "uuid", ""), "pool.db", true,
			"it is bound to migration %s, which never began here", migration);
		value_set_string(finding, "ref", ref);
		value_set_string(finding, "owner", migration);
	}
}

static void look_at_sessions(struct doctor *doctor, const struct value *moves)
{
	struct value *records CLEANUP_VALUE = NULL;

	if (object_get_all_records(doctor->params->storage->pool, "session", &records, NULL) < 0)
		return;
	for (size_t i = 0; i < records->record.n_members; i++)
		look_at_session(doctor, moves, records->record.members[i].name,
			records->record.members[i].value);
}

int doctor_fix_session(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	const char *owner = value_find_string(finding, "owner", "");
	int r = doctor_bury(doctor, owner, fault);

	return r < 0 ? r
		     : object_map_remove(doctor->params->storage->pool, "session",
			       value_find_string(finding, "ref", ""), "other_config", owner, fault);
}

/* --- Decisions ----------------------------------------------------------------------------------
 */

/* Migrations that some session is bound to, whose senders may still ask. */
static struct value *list_bound(struct doctor *doctor)
{
	struct value *records CLEANUP_VALUE = NULL;
	struct value *bound = value_new_struct();

	if (object_get_all_records(doctor->params->storage->pool, "session", &records, NULL) < 0)
		return value_free(bound);
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value *config =
			value_find(records->record.members[i].value, "other_config");
		for (size_t j = 0; value_find(config, SESSION_KEY) && j < config->record.n_members;
			j++)
			value_set_bool(bound, config->record.members[j].name, true);
	}
	return bound;
}

/* An aborted one that is asked about again is aborted again; a committed one would be too, which is
 * why it stays as long as somebody may ask. */
static struct value *list_old_commits(
	struct doctor *doctor, const struct value *moves, int64_t age_sec)
{
	struct value *commits CLEANUP_VALUE = NULL;
	struct value *bound CLEANUP_VALUE = list_bound(doctor);
	struct value *old = value_new_struct();

	if (!bound || commit_list(doctor->params->storage->pool, clock_wall_sec() - age_sec,
			      &commits, NULL) < 0)
		return old;
	for (size_t i = 0; i < commits->record.n_members; i++) {
		const struct value_member *commit = &commits->record.members[i];
		bool may_be_asked = commit->value->boolean && value_find(bound, commit->name);
		if (!may_be_asked && !is_worked_on(doctor, moves, commit->name))
			value_set(old, commit->name, value_copy(commit->value));
	}
	return old;
}

/* A day of grace: the agent prunes them itself, once an hour. */
static void look_at_commits(struct doctor *doctor, const struct value *moves)
{
	struct value *old CLEANUP_VALUE =
		list_old_commits(doctor, moves, (DOCTOR_COMMIT_DAYS + 1) * SECONDS_PER_DAY);

	for (size_t i = 0; i < old->record.n_members; i++)
		doctor_add(doctor, "commit", old->record.members[i].name, "pool.db", true,
			"the decision is older than %d days, and nobody can ask for it",
			DOCTOR_COMMIT_DAYS);
}

int doctor_fix_commit(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	return commit_forget(
		doctor->params->storage->pool, value_find_string(finding, "what", ""), fault);
}

void doctor_prune_commits(struct supervisor *supervisor)
{
	struct doctor doctor = {.supervisor = supervisor, .params = supervisor->params};

	if (!is_coordinator(&doctor))
		return;
	struct value *moves CLEANUP_VALUE = list_moves(&doctor);
	if (!moves)
		return;
	struct value *old CLEANUP_VALUE =
		list_old_commits(&doctor, moves, DOCTOR_COMMIT_DAYS * SECONDS_PER_DAY);
	for (size_t i = 0; i < old->record.n_members; i++)
		commit_forget(supervisor->params->storage->pool, old->record.members[i].name, NULL);
}

void doctor_look_at_pool(struct doctor *doctor)
{
	if (!is_coordinator(doctor))
		return;
	/* After the marks and sessions were seen nothing may begin that is not in the list: the
	 * second look has another one. */
	struct value *moves CLEANUP_VALUE = list_moves(doctor);
	if (!moves)
		return;
	look_at_class(doctor, moves, "VM");
	look_at_class(doctor, moves, "VDI");
	look_at_sessions(doctor, moves);
	look_at_commits(doctor, moves);
}
