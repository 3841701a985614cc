/* SPDX-License-Identifier: Apache-2.0 */
/* Creating and changing objects. A change takes the next generation; when it moves a relation, the
 * objects at the old and the new other end, whose records show it, take one too. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/uuid.h"
#include "schema/pool_private.h"

#include <errno.h>
#include <string.h>

/* --- Existence and touching ------------------------------------------------------------------ */

/* 1 there, 0 not. */
static int exists(
	struct pool_db *pool, const struct class_table *table, const char *ref, struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("SELECT 1 FROM \"%s\" WHERE \"ref\" = ?", table->class->name);
	int64_t one;

	return db_read_int(pool->db, &one, fault, sql, "t", ref);
}

int object_require(
	struct pool_db *pool, const struct class_table *table, const char *ref, struct fault *fault)
{
	int r = exists(pool, table, ref, fault);

	if (r != 0)
		return r < 0 ? r : 0;
	return fault_set(fault, -ENOENT, "HANDLE_INVALID", table->class->name, ref, NULL);
}

bool object_exists(struct pool_db *pool, const char *class, const char *ref)
{
	const struct class_table *table;
	struct db_scope scope;

	if (class_table_find(pool, class, &table, NULL) < 0 ||
		db_begin(pool->db, DB_READ, &scope, NULL) < 0)
		return false;
	return db_end(&scope, exists(pool, table, ref, NULL), NULL) > 0;
}

int object_check(struct pool_db *pool, const char *class, const char *ref, struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, object_require(pool, table, ref, fault), fault);
}

int object_touch(
	struct pool_db *pool, const struct class_table *table, const char *ref, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf(
		"UPDATE \"%s\" SET \"changed_gen\" = ? WHERE \"ref\" = ?", table->class->name);

	return db_run(
		pool->db, fault, sql, "it", (int64_t)pool_next_generation(pool, table->class), ref);
}

int object_touch_target(
	struct pool_db *pool, const struct relation *relation, const char *ref, struct fault *fault)
{
	if (!ref || !relation || !relation->shown)
		return 0;
	return object_touch(pool, relation->to, ref, fault);
}

/* What a field is about to point at must be there. */
static int require_target(struct pool_db *pool, const struct class_table *table,
	const struct class_field *field, const struct db_cell *cell, struct fault *fault)
{
	const struct relation *relation = relation_of(pool, table, field);

	if (!relation || cell->type == DB_NULL)
		return 0;
	return object_require(pool, relation->to, cell->text, fault);
}

/* As field_encode, and looks whether a ref exists. */
static int encode(struct pool_db *pool, const struct class_table *table,
	const struct class_field *field, const struct value *value, struct db_cell *ret_cell,
	struct fault *fault)
{
	int r = field_encode(field, value, ret_cell, fault);

	if (r < 0)
		return r;
	if (field->type == FIELD_SET_REF && class_find(field->of))
		for (size_t i = 0; r == 0 && i < value->array.n_items; i++)
			r = object_require(pool, &pool->tables[class_find(field->of) - classes],
				value->array.items[i]->string, fault);
	return r < 0 ? r : require_target(pool, table, field, ret_cell, fault);
}

/* --- Rows of cells -----------------------------------------------------------------------------
 */

struct row {
	struct db_cell *cells;
	size_t n;
};

static void row_clear(struct row *row)
{
	for (size_t i = 0; row->cells && i < row->n; i++)
		db_cell_clear(&row->cells[i]);
	free(row->cells);
	*row = (struct row){0};
}

#define CLEANUP_ROW CLEANUP(row_clear)

static void row_init(struct row *row, size_t n)
{
	row->cells = xcalloc(n, sizeof(*row->cells));
	row->n = n;
}

static int bind_row(
	struct db_query *query, int position, const struct row *row, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < row->n; i++)
		r = db_bind_cell(query, position + (int)i, &row->cells[i], fault);
	return r;
}

/* --- Create ---------------------------------------------------------------------------------- */

static int check_names(
	const struct class_table *table, const struct value *fields, struct fault *fault)
{
	const struct class_field *field;
	int r = 0;

	for (size_t i = 0; fields && r == 0 && i < fields->record.n_members; i++) {
		r = class_table_field(table, fields->record.members[i].name, &field, fault);
		if (r == 0 && field->type == FIELD_DERIVED)
			r = field_encode(field, fields->record.members[i].value, NULL, fault);
	}
	return r;
}

static int check_uuid(struct pool_db *pool, const struct class_table *table, const char *uuid,
	struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("SELECT 1 FROM \"%s\" WHERE \"uuid\" = ?", table->class->name);
	int64_t one;

	if (!uuid_is_valid(uuid))
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "uuid", uuid, NULL);
	int r = db_read_int(pool->db, &one, fault, sql, "t", uuid);
	if (r <= 0)
		return r;
	return fault_set(fault, -EEXIST, "DB_UNIQUENESS_CONSTRAINT_VIOLATION", table->class->name,
		"uuid", uuid, NULL);
}

static int fill_row(struct pool_db *pool, const struct class_table *table,
	const struct value *fields, struct row *row, struct fault *fault)
{
	int r = check_names(table, fields, fault);

	for (size_t i = 0; r == 0 && i < table->n_stored; i++) {
		const struct class_field *field = table->stored[i];
		const struct value *value = value_find(fields, field->name);
		if (value)
			r = encode(pool, table, field, value, &row->cells[i], fault);
		else
			field_default(field, &row->cells[i]);
	}
	if (r < 0)
		return r;
	struct db_cell *uuid = &row->cells[0]; /* the first field of every class */
	if (*uuid->text)
		return check_uuid(pool, table, uuid->text, fault);
	free(uuid->text);
	uuid->text = uuid_new();
	return 0;
}

static int insert_row(struct pool_db *pool, const struct class_table *table, const char *ref,
	const struct row *row, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int64_t generation = (int64_t)pool_next_generation(pool, table->class);

	int r = db_query(
		pool->db, &query, fault, table->insert, "tii", ref, generation, generation);
	if (r == 0)
		r = bind_row(query, N_FIXED_COLUMNS + 1, row, fault);
	return r < 0 ? r : db_finish(query, fault);
}

static int create(struct pool_db *pool, const struct class_table *table, const struct value *fields,
	const char *ref, struct fault *fault)
{
	struct row row CLEANUP_ROW = {0};

	row_init(&row, table->n_stored);
	int r = fill_row(pool, table, fields, &row, fault);
	if (r == 0)
		r = insert_row(pool, table, ref, &row, fault);
	for (size_t i = 0; r == 0 && i < table->n_stored; i++)
		r = object_touch_target(
			pool, relation_of(pool, table, table->stored[i]), row.cells[i].text, fault);
	return r;
}

int object_create(struct pool_db *pool, const char *class, const struct value *fields,
	char **ret_ref, struct fault *fault)
{
	const struct class_table *table;
	char *ref CLEANUP_FREE = ref_new();
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, create(pool, table, fields, ref, fault), fault);
	if (r == 0 && ret_ref)
		*ret_ref = TAKE_PTR(ref);
	return r;
}

static int restore(struct pool_db *pool, const struct class_table *table,
	const struct value *fields, const char *ref, struct fault *fault)
{
	int r = exists(pool, table, ref, fault);

	if (r > 0)
		return fault_set(fault, -EEXIST, "DB_UNIQUENESS_CONSTRAINT_VIOLATION",
			table->class->name, "ref", ref, NULL);
	return r < 0 ? r : create(pool, table, fields, ref, fault);
}

int object_restore(struct pool_db *pool, const char *class, const char *ref,
	const struct value *fields, struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, restore(pool, table, fields, ref, fault), fault);
}

/* --- Change ---------------------------------------------------------------------------------- */

struct change {
	const struct class_field *field;
	struct db_cell cell;
	char *old_ref; /* what a REF field pointed at */
};

struct changes {
	struct change *items;
	size_t n;
};

static void changes_clear(struct changes *changes)
{
	for (size_t i = 0; i < changes->n; i++) {
		db_cell_clear(&changes->items[i].cell);
		free(changes->items[i].old_ref);
	}
	free(changes->items);
}

static bool column_equals(struct db_query *query, int column, const struct db_cell *cell)
{
	const char *text;

	if (cell->type == DB_INT)
		return db_column_int(query, column) == cell->integer;
	if (cell->type == DB_REAL)
		return db_column_real(query, column) == cell->real;
	text = db_column_text(query, column);
	if (cell->type == DB_NULL || !text)
		return cell->type == DB_NULL && !text;
	return strcmp(text, cell->text) == 0;
}

static int change_encode(struct pool_db *pool, const struct class_table *table,
	const struct value_member *member, struct change *change, struct fault *fault)
{
	int r = class_table_field(table, member->name, &change->field, fault);
	if (r < 0)
		return r;
	if (strcmp(member->name, "uuid") == 0)
		return fault_text(fault, -EINVAL, "%s.uuid never changes", table->class->name);
	return encode(pool, table, change->field, member->value, &change->cell, fault);
}

/* Drops the changes that change nothing, and keeps what refs pointed at. */
static int compare(struct pool_db *pool, const struct class_table *table, const char *ref,
	struct changes *changes, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf("%s WHERE \"ref\" = ?", table->select);
	struct db_query *query CLEANUP_QUERY = NULL;
	size_t n = 0;

	int r = db_query(pool->db, &query, fault, sql, "t", ref);
	if (r == 0)
		r = db_next(query, fault);
	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", table->class->name, ref, NULL);
	for (size_t i = 0; i < changes->n; i++) {
		struct change change = changes->items[i];
		int column = N_FIXED_COLUMNS;
		while (table->stored[column - N_FIXED_COLUMNS] != change.field)
			column++;
		if (column_equals(query, column, &change.cell)) {
			db_cell_clear(&change.cell);
			continue;
		}
		if (change.field->type == FIELD_REF)
			change.old_ref = xstrdup(db_column_text(query, column));
		changes->items[n++] = change;
	}
	changes->n = n;
	return 0;
}

static int update(struct pool_db *pool, const struct class_table *table, const char *ref,
	const struct changes *changes, struct fault *fault)
{
	const struct db_cell key = {.type = DB_TEXT, .text = (char *)ref};
	struct buf sql CLEANUP_BUF = BUF_INIT;
	struct db_query *query CLEANUP_QUERY = NULL;

	buf_printf(&sql, "UPDATE \"%s\" SET \"changed_gen\" = ?", table->class->name);
	for (size_t i = 0; i < changes->n; i++)
		buf_printf(&sql, ", \"%s\" = ?", changes->items[i].field->name);
	buf_append_string(&sql, " WHERE \"ref\" = ?");
	int r = db_query(pool->db, &query, fault, sql.data, "i",
		(int64_t)pool_next_generation(pool, table->class));
	for (size_t i = 0; r == 0 && i < changes->n; i++)
		r = db_bind_cell(query, (int)i + 2, &changes->items[i].cell, fault);
	if (r == 0)
		r = db_bind_cell(query, (int)changes->n + 2, &key, fault);
	return r < 0 ? r : db_finish(query, fault);
}

static int touch_ends(struct pool_db *pool, const struct class_table *table,
	const struct changes *changes, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < changes->n; i++) {
		const struct change *change = &changes->items[i];
		const struct relation *relation = relation_of(pool, table, change->field);
		r = object_touch_target(pool, relation, change->old_ref, fault);
		if (r == 0)
			r = object_touch_target(pool, relation, change->cell.text, fault);
	}
	return r;
}

static int set_fields(struct pool_db *pool, const struct class_table *table, const char *ref,
	const struct value *fields, struct fault *fault)
{
	struct changes changes CLEANUP(changes_clear) = {0};
	int r = object_require(pool, table, ref, fault);

	changes.items = xcalloc(fields->record.n_members + 1, sizeof(*changes.items));
	for (size_t i = 0; r == 0 && i < fields->record.n_members; i++)
		r = change_encode(pool, table, &fields->record.members[i],
			&changes.items[changes.n++], fault);
	if (r == 0)
		r = compare(pool, table, ref, &changes, fault);
	if (r < 0 || changes.n == 0)
		return r;
	r = update(pool, table, ref, &changes, fault);
	return r < 0 ? r : touch_ends(pool, table, &changes, fault);
}

int object_set_fields(struct pool_db *pool, const char *class, const char *ref,
	const struct value *fields, struct fault *fault)
{
	const struct class_table *table;
	struct db_scope scope;

	int r = class_table_find(pool, class, &table, fault);
	if (r == 0)
		r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, set_fields(pool, table, ref, fields, fault), fault);
}

int object_set_field(struct pool_db *pool, const char *class, const char *ref, const char *field,
	const struct value *value, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();

	value_set(fields, field, value_copy(value));
	return object_set_fields(pool, class, ref, fields, fault);
}
