/* SPDX-License-Identifier: Apache-2.0 */
/* Destroying objects: refused while something belongs to them; weaker references become null. */
#include "base/alloc.h"
#include "base/uuid.h"
#include "schema/pool_private.h"

#include <errno.h>

static int refuse_if_owner(
	struct pool_db *pool, const struct relation *relation, const char *ref, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;

	int r = relation_refs(pool, relation, ref, &refs, fault);
	if (r < 0 || refs->array.n_items == 0)
		return r;
	return fault_text(fault, -EBUSY,
		"%s %s cannot be destroyed: it is the %s of %s %s%s: destroy that first",
		relation->to->class->name, ref, relation->field->name, relation->from->class->name,
		refs->array.items[0]->string, refs->array.n_items > 1 ? " and of others" : "");
}

static int clear_references(
	struct pool_db *pool, const struct relation *relation, const char *ref, struct fault *fault)
{
	struct value *null CLEANUP_VALUE = value_new_string(REF_NULL);
	struct value *refs CLEANUP_VALUE = NULL;

	int r = relation_refs(pool, relation, ref, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = object_set_field(pool, relation->from->class->name,
			refs->array.items[i]->string, relation->field->name, null, fault);
	return r;
}

/* Takes the ref out of the stored set of every object that has it. */
static int leave_sets(struct pool_db *pool, const struct class *class,
	const struct class_field *field, const char *ref, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf(
		"SELECT \"ref\" FROM \"%s\" WHERE instr(\"%s\", ?)", class->name, field->name);
	struct value *refs CLEANUP_VALUE = NULL;
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, sql, "t", ref);
	if (r == 0)
		r = refs_collect(query, &refs, fault);
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = object_set_remove(
			pool, class->name, refs->array.items[i]->string, field->name, ref, fault);
	return r;
}

static int leave_all_sets(
	struct pool_db *pool, const struct class_table *table, const char *ref, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; i < n_classes; i++) {
		for (size_t j = 0; r == 0 && j < classes[i].n_fields; j++) {
			const struct class_field *field = &classes[i].fields[j];
			if (field->type == FIELD_SET_REF && class_find(field->of) == table->class)
				r = leave_sets(pool, &classes[i], field, ref, fault);
		}
	}
	return r;
}

/* The objects that the record pointed at show it no more. */
static int touch_targets(struct pool_db *pool, const struct class_table *table,
	const struct value *record, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < pool->n_relations; i++) {
		const struct relation *relation = &pool->relations[i];
		if (relation->from != table)
			continue;
		const char *target = value_find_string(record, relation->field->name, REF_NULL);
		r = object_touch_target(pool, relation, ref_is_null(target) ? NULL : target, fault);
	}
	return r;
}

static int leave_relations(
	struct pool_db *pool, const struct class_table *table, const char *ref, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < pool->n_relations; i++)
		if (pool->relations[i].to == table && pool->relations[i].field->owner)
			r = refuse_if_owner(pool, &pool->relations[i], ref, fault);
	for (size_t i = 0; r == 0 && i < pool->n_relations; i++)
		if (pool->relations[i].to == table && !pool->relations[i].field->owner)
			r = clear_references(pool, &pool->relations[i], ref, fault);
	return r < 0 ? r : leave_all_sets(pool, table, ref, fault);
}

static int destroy(
	struct pool_db *pool, const struct class_table *table, const char *ref, struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("DELETE FROM \"%s\" WHERE \"ref\" = ?", table->class->name);
	struct record_set set CLEANUP_RECORD_SET = {0};

	int r = object_require(pool, table, ref, fault);
	if (r == 0)
		r = leave_relations(pool, table, ref, fault);
	if (r == 0)
		r = record_set_load(pool, table, 0, ref, &set, fault);
	if (r == 0)
		r = db_run(pool->db, fault, sql, "t", ref);
	if (r == 0)
		r = tombstone_add(pool, table, ref, set.generations[0].created, fault);
	if (r == 0)
		r = touch_targets(pool, table, set.records->record.members[0].value, fault);
	return r;
}

int object_destroy(struct pool_db *pool, const char *class, const char *ref, struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, destroy(pool, table, ref, fault), fault);
}
