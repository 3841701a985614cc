/* SPDX-License-Identifier: Apache-2.0 */
/* Reading objects: whole records, with the ends of relations that they show, and lists of refs. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/uuid.h"
#include "schema/pool_private.h"

#include <errno.h>
#include <string.h>

/* Up to so many records, a relation is asked for record by record; beyond, it is read whole. */
#define N_RECORDS_SINGLY 32

void record_set_clear(struct record_set *set)
{
	value_free(set->records);
	free(set->generations);
	*set = (struct record_set){0};
}

/* --- Relations ------------------------------------------------------------------------------- */

int refs_collect(struct db_query *query, struct value **ret_refs, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = value_new_array();
	int r;

	while ((r = db_next(query, fault)) > 0)
		value_append_string(refs, db_column_text(query, 0));
	if (r < 0)
		return r;
	*ret_refs = TAKE_PTR(refs);
	return 0;
}

int relation_refs(struct pool_db *pool, const struct relation *relation, const char *ref,
	struct value **ret_refs, struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("SELECT \"ref\" FROM \"%s\" WHERE \"%s\" = ? ORDER BY \"created_gen\"",
			relation->from->class->name, relation->field->name);
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, sql, "t", ref);
	return r < 0 ? r : refs_collect(query, ret_refs, fault);
}

static bool is_shown(const struct relation *relation, const struct class_table *table)
{
	return relation->to == table && relation->shown;
}

/* One statement for all relations that the table shows: number of the relation, ref. Empty when it
 * shows none. */
static void build_union(
	const struct pool_db *pool, const struct class_table *table, struct buf *sql)
{
	for (size_t i = 0; i < pool->n_relations; i++) {
		const struct relation *relation = &pool->relations[i];
		if (is_shown(relation, table))
			buf_printf(sql,
				"%sSELECT %zu, \"ref\", \"created_gen\" FROM \"%s\" WHERE \"%s\" = "
				"?1",
				sql->length ? " UNION ALL " : "", i, relation->from->class->name,
				relation->field->name);
	}
	if (sql->length)
		buf_append_string(sql, " ORDER BY 1, 3");
}

static int derive_singly(struct pool_db *pool, const struct class_table *table,
	struct record_set *set, struct fault *fault)
{
	struct buf sql CLEANUP_BUF = BUF_INIT;
	int r = 0;

	build_union(pool, table, &sql);
	for (size_t i = 0; sql.length && r == 0 && i < set->records->record.n_members; i++) {
		struct value_member *member = &set->records->record.members[i];
		struct db_query *query CLEANUP_QUERY = NULL;
		r = db_query(pool->db, &query, fault, sql.data, "t", member->name);
		while (r == 0 && (r = db_next(query, fault)) > 0) {
			const struct relation *relation = &pool->relations[db_column_int(query, 0)];
			value_append_string(value_find(member->value, relation->shown->name),
				db_column_text(query, 1));
			r = 0;
		}
	}
	return r;
}

static int derive_whole(struct pool_db *pool, const struct relation *relation,
	struct record_set *set, struct fault *fault)
{
	const char *field = relation->field->name;
	char *sql CLEANUP_FREE = xasprintf("SELECT \"%s\", \"ref\" FROM \"%s\" WHERE \"%s\" IS NOT "
					   "NULL ORDER BY \"created_gen\"",
		field, relation->from->class->name, field);
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, sql, "");
	if (r < 0)
		return r;
	while ((r = db_next(query, fault)) > 0) {
		struct value *record = value_find(set->records, db_column_text(query, 0));
		if (record)
			value_append_string(value_find(record, relation->shown->name),
				db_column_text(query, 1));
	}
	return r;
}

static int derive(struct pool_db *pool, const struct class_table *table, struct record_set *set,
	struct fault *fault)
{
	int r = 0;

	if (set->records->record.n_members <= N_RECORDS_SINGLY)
		return derive_singly(pool, table, set, fault);
	for (size_t i = 0; r == 0 && i < pool->n_relations; i++)
		if (is_shown(&pool->relations[i], table))
			r = derive_whole(pool, &pool->relations[i], set, fault);
	return r;
}

/* --- Records --------------------------------------------------------------------------------- */

/* Derived fields are empty sets here, in their places. */
static int read_record(const struct class_table *table, struct db_query *query,
	struct value **ret_record, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = value_new_struct();
	int column = N_FIXED_COLUMNS;

	for (size_t i = 0; i < table->class->n_fields; i++) {
		const struct class_field *field = &table->class->fields[i];
		struct value *value = NULL;
		int r = 0;
		if (field->type == FIELD_DERIVED)
			value = value_new_array();
		else
			r = field_decode(field, query, column++, &value, fault);
		if (r < 0)
			return r;
		value_add(record, field->name, value);
	}
	*ret_record = TAKE_PTR(record);
	return 0;
}

static int read_rows(const struct class_table *table, struct db_query *query,
	struct record_set *set, struct fault *fault)
{
	size_t n = 0;
	int r;

	while ((r = db_next(query, fault)) > 0) {
		struct value *record = NULL;
		r = read_record(table, query, &record, fault);
		if (r < 0)
			return r;
		value_set(set->records, db_column_text(query, 0), record);
		if ((n & (n - 1)) == 0) /* full at each power of two */
			set->generations = xrealloc(
				set->generations, n ? n * 2 : 1, sizeof(*set->generations));
		set->generations[n].created = (uint64_t)db_column_int(query, 1);
		set->generations[n++].changed = (uint64_t)db_column_int(query, 2);
	}
	return r;
}

int record_set_load(struct pool_db *pool, const struct class_table *table, uint64_t since,
	const char *ref, struct record_set *set, struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("%s WHERE \"changed_gen\" > ?%s ORDER BY \"created_gen\"", table->select,
			ref ? " AND \"ref\" = ?" : "");
	struct db_query *query CLEANUP_QUERY = NULL;

	record_set_clear(set);
	set->records = value_new_struct();
	int r = db_query(pool->db, &query, fault, sql, ref ? "it" : "i", (int64_t)since, ref);
	if (r == 0)
		r = read_rows(table, query, set, fault);
	if (r == 0)
		r = derive(pool, table, set, fault);
	return r;
}

static int get_record(struct pool_db *pool, const struct class_table *table, const char *ref,
	struct value **ret_record, struct fault *fault)
{
	struct record_set set CLEANUP_RECORD_SET = {0};

	int r = record_set_load(pool, table, 0, ref, &set, fault);
	if (r < 0)
		return r;
	*ret_record = value_take(set.records, ref);
	return *ret_record
		       ? 0
		       : fault_set(fault, -ENOENT, "HANDLE_INVALID", table->class->name, ref, NULL);
}

int object_get_record(struct pool_db *pool, const char *class, const char *ref,
	struct value **ret_record, struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, get_record(pool, table, ref, ret_record, fault), fault);
}

int object_get_all_records(
	struct pool_db *pool, const char *class, struct value **ret_records, struct fault *fault)
{
	struct record_set set CLEANUP_RECORD_SET = {0};
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, record_set_load(pool, table, 0, NULL, &set, fault), fault);
	if (r == 0)
		*ret_records = TAKE_PTR(set.records);
	return r;
}

/* --- Single fields --------------------------------------------------------------------------- */

static int get_stored(struct pool_db *pool, const struct class_table *table, const char *ref,
	const struct class_field *field, struct value **ret_value, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf(
		"SELECT \"%s\" FROM \"%s\" WHERE \"ref\" = ?", field->name, table->class->name);
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, sql, "t", ref);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", table->class->name, ref, NULL);
	return field_decode(field, query, 0, ret_value, fault);
}

static int get_derived(struct pool_db *pool, const struct class_table *table, const char *ref,
	const struct class_field *field, struct value **ret_value, struct fault *fault)
{
	int r = object_require(pool, table, ref, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < pool->n_relations; i++)
		if (pool->relations[i].shown == field)
			return relation_refs(pool, &pool->relations[i], ref, ret_value, fault);
	return fault_text(fault, -EINVAL, "%s.%s shows %s, which is no relation",
		table->class->name, field->name, field->of);
}

int object_get_field(struct pool_db *pool, const char *class, const char *ref, const char *field,
	struct value **ret_value, struct fault *fault)
{
	const struct class_field *found;
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = class_table_field(table, field, &found, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = found->type == FIELD_DERIVED ? get_derived(pool, table, ref, found, ret_value, fault)
					 : get_stored(pool, table, ref, found, ret_value, fault);
	return db_end(&scope, r, fault);
}

static int get_typed(struct pool_db *pool, const char *class, const char *ref, const char *field,
	enum value_type type, struct value **ret_value, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = NULL;

	int r = object_get_field(pool, class, ref, field, &value, fault);
	if (r < 0)
		return r;
	if (value->type != type)
		return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", field, NULL);
	*ret_value = TAKE_PTR(value);
	return 0;
}

int object_get_string(struct pool_db *pool, const char *class, const char *ref, const char *field,
	char **ret_text, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = NULL;

	int r = get_typed(pool, class, ref, field, VALUE_STRING, &value, fault);
	if (r == 0)
		*ret_text = xstrdup(value->string);
	return r;
}

int object_get_int(struct pool_db *pool, const char *class, const char *ref, const char *field,
	int64_t *ret_value, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = NULL;

	int r = get_typed(pool, class, ref, field, VALUE_INT, &value, fault);
	if (r == 0)
		*ret_value = value->integer;
	return r;
}

int object_get_bool(struct pool_db *pool, const char *class, const char *ref, const char *field,
	bool *ret_value, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = NULL;

	int r = get_typed(pool, class, ref, field, VALUE_BOOL, &value, fault);
	if (r == 0)
		*ret_value = value->boolean;
	return r;
}

/* --- Lists of refs -----------------------------------------------------------------------------
 */

/* condition: "", or " WHERE ..." with one text parameter. */
static int list_refs(struct pool_db *pool, const struct class_table *table, const char *condition,
	const char *parameter, struct value **ret_refs, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf("SELECT \"ref\" FROM \"%s\"%s ORDER BY \"created_gen\"",
		table->class->name, condition);
	struct db_query *query CLEANUP_QUERY = NULL;
	struct db_scope scope;

	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_query(pool->db, &query, fault, sql, *condition ? "t" : "", parameter);
	if (r == 0)
		r = refs_collect(query, ret_refs, fault);
	query = db_query_free(query);
	return db_end(&scope, r, fault);
}

int object_get_all(
	struct pool_db *pool, const char *class, struct value **ret_refs, struct fault *fault)
{
	const struct class_table *table;

	int r = class_table_find(pool, class, &table, fault);
	return r < 0 ? r : list_refs(pool, table, "", NULL, ret_refs, fault);
}

int object_find(struct pool_db *pool, const char *class, const char *field, const char *value,
	struct value **ret_refs, struct fault *fault)
{
	const struct class_field *found;
	const struct class_table *table;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = class_table_field(table, field, &found, fault);
	if (r < 0)
		return r;
	if (found->type != FIELD_STRING && found->type != FIELD_ENUM && found->type != FIELD_REF)
		return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", field, NULL);
	if (found->type == FIELD_REF && ref_is_null(value))
		value = NULL;
	char *condition CLEANUP_FREE = xasprintf(" WHERE \"%s\" IS ?", found->name);
	return list_refs(pool, table, condition, value, ret_refs, fault);
}

int object_get_by_name_label(struct pool_db *pool, const char *class, const char *label,
	struct value **ret_refs, struct fault *fault)
{
	return object_find(pool, class, "name_label", label, ret_refs, fault);
}

int object_get_by_uuid(struct pool_db *pool, const char *class, const char *uuid, char **ret_ref,
	struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;

	int r = object_find(pool, class, "uuid", uuid, &refs, fault);
	if (r < 0)
		return r;
	if (refs->array.n_items == 0)
		return fault_set(fault, -ENOENT, "UUID_INVALID", class, uuid, NULL);
	*ret_ref = xstrdup(refs->array.items[0]->string);
	return 0;
}
