/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the classes, made from the list: a table per class, a column per stored field, a
 * foreign key and an index per relation. A field that the list has gained becomes a column with its
 * default; a column that the list has lost stays, unused. Anything else (another type, another
 * meaning) is the work of a numbered migration. */
#include "base/alloc.h"
#include "base/buf.h"
#include "schema/pool_private.h"

#include <errno.h>
#include <string.h>

int class_table_find(struct pool_db *pool, const char *class, const struct class_table **ret_table,
	struct fault *fault)
{
	const struct class *found = class_find(class);

	if (!found)
		return fault_text(fault, -EINVAL, "there is no class %s", class);
	*ret_table = &pool->tables[found - classes];
	return 0;
}

int class_table_field(const struct class_table *table, const char *name,
	const struct class_field **ret_field, struct fault *fault)
{
	*ret_field = class_field_find(table->class, name);
	if (*ret_field)
		return 0;
	return fault_text(fault, -EINVAL, "%s has no field %s", table->class->name, name);
}

const struct relation *relation_of(const struct pool_db *pool, const struct class_table *table,
	const struct class_field *field)
{
	if (field->type != FIELD_REF)
		return NULL;
	for (size_t i = 0; i < pool->n_relations; i++)
		if (pool->relations[i].from == table && pool->relations[i].field == field)
			return &pool->relations[i];
	return NULL;
}

/* --- Making them ----------------------------------------------------------------------------- */

static void append_literal(struct buf *sql, const struct db_cell *cell)
{
	if (cell->type == DB_INT) {
		buf_printf(sql, "%lld", (long long)cell->integer);
	} else if (cell->type == DB_REAL) {
		buf_printf(sql, "%.17g", cell->real);
	} else {
		buf_append_char(sql, '\'');
		for (const char *c = cell->text; *c; c++) {
			buf_append_char(sql, *c);
			if (*c == '\'')
				buf_append_char(sql, '\'');
		}
		buf_append_char(sql, '\'');
	}
}

static void append_column(struct buf *sql, const struct class_field *field)
{
	struct db_cell cell CLEANUP(db_cell_clear) = {0};

	buf_printf(sql, "\"%s\" %s", field->name, field_sql_type(field));
	if (strcmp(field->name, "uuid") == 0) {
		buf_append_string(sql, " NOT NULL UNIQUE");
	} else if (field->type == FIELD_REF) {
		if (class_find(field->of))
			buf_printf(sql,
				" REFERENCES \"%s\" (\"ref\") DEFERRABLE INITIALLY DEFERRED",
				field->of);
	} else {
		field_default(field, &cell);
		buf_append_string(sql, " NOT NULL DEFAULT ");
		append_literal(sql, &cell);
	}
}

static int create_table(struct pool_db *pool, const struct class_table *table, struct fault *fault)
{
	struct buf sql CLEANUP_BUF = BUF_INIT;

	buf_printf(&sql,
		"CREATE TABLE \"%s\" (\"ref\" TEXT NOT NULL PRIMARY KEY, "
		"\"created_gen\" INTEGER NOT NULL, \"changed_gen\" INTEGER NOT NULL",
		table->class->name);
	for (size_t i = 0; i < table->n_stored; i++) {
		buf_append_string(&sql, ", ");
		append_column(&sql, table->stored[i]);
	}
	buf_append_string(&sql, ", \"" UNKNOWN_COLUMN "\" TEXT) STRICT");
	return db_run(pool->db, fault, sql.data, "");
}

/* *ret_columns: struct of column -> SQL type; empty when there is no table. */
static int read_columns(struct pool_db *pool, const struct class_table *table,
	struct value **ret_columns, struct fault *fault)
{
	struct value *columns CLEANUP_VALUE = value_new_struct();
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = db_query(pool->db, &query, fault, "SELECT name, type FROM pragma_table_info(?)",
		"t", table->class->name);
	if (r < 0)
		return r;
	while ((r = db_next(query, fault)) > 0)
		value_set_string(columns, db_column_text(query, 0), db_column_text(query, 1));
	if (r < 0)
		return r;
	*ret_columns = TAKE_PTR(columns);
	return 0;
}

static int add_column(struct pool_db *pool, const struct class_table *table,
	const struct class_field *field, struct fault *fault)
{
	struct buf sql CLEANUP_BUF = BUF_INIT;

	buf_printf(&sql, "ALTER TABLE \"%s\" ADD COLUMN ", table->class->name);
	append_column(&sql, field);
	return db_run(pool->db, fault, sql.data, "");
}

static int add_unknown_column(
	struct pool_db *pool, const struct class_table *table, struct fault *fault)
{
	char *sql CLEANUP_FREE = xasprintf(
		"ALTER TABLE \"%s\" ADD COLUMN \"" UNKNOWN_COLUMN "\" TEXT", table->class->name);

	return db_run(pool->db, fault, sql, "");
}

static int sync_table(struct pool_db *pool, const struct class_table *table, struct fault *fault)
{
	struct value *columns CLEANUP_VALUE = NULL;

	int r = read_columns(pool, table, &columns, fault);
	if (r < 0)
		return r;
	if (columns->record.n_members == 0)
		return create_table(pool, table, fault);
	for (size_t i = 0; r == 0 && i < table->n_stored; i++) {
		const struct class_field *field = table->stored[i];
		const char *type = value_find_string(columns, field->name, NULL);
		if (!type)
			r = add_column(pool, table, field, fault);
		else if (strcmp(type, field_sql_type(field)) != 0)
			r = fault_text(fault, -EBADMSG,
				"database %s: %s.%s is %s there and %s in this program: it was "
				"written by another ferryd",
				db_path(pool->db), table->class->name, field->name, type,
				field_sql_type(field));
	}
	if (r == 0 && !value_find(columns, UNKNOWN_COLUMN))
		r = add_unknown_column(pool, table, fault);
	return r;
}

static int ensure_index(struct pool_db *pool, const struct class_table *table, const char *column,
	struct fault *fault)
{
	char *sql CLEANUP_FREE =
		xasprintf("CREATE INDEX IF NOT EXISTS \"%s.%s\" ON \"%s\" (\"%s\")",
			table->class->name, column, table->class->name, column);

	return db_run(pool->db, fault, sql, "");
}

/* --- What is kept about them -------------------------------------------------------------------
 */

static void describe_table(struct class_table *table, const struct class *class)
{
	struct buf select CLEANUP_BUF = BUF_INIT;
	struct buf insert CLEANUP_BUF = BUF_INIT;

	table->class = class;
	table->stored = xcalloc(class->n_fields, sizeof(struct class_field *));
	buf_append_string(&select, "SELECT \"ref\", \"created_gen\", \"changed_gen\"");
	buf_printf(&insert, "INSERT INTO \"%s\" (\"ref\", \"created_gen\", \"changed_gen\"",
		class->name);
	for (size_t i = 0; i < class->n_fields; i++) {
		const struct class_field *field = &class->fields[i];
		if (field->type == FIELD_DERIVED)
			continue;
		table->stored[table->n_stored++] = field;
		buf_printf(&select, ", \"%s\"", field->name);
		buf_printf(&insert, ", \"%s\"", field->name);
	}
	buf_printf(&select, " FROM \"%s\"", class->name);
	buf_append_string(&insert, ") VALUES (?, ?, ?");
	for (size_t i = 0; i < table->n_stored; i++)
		buf_append_string(&insert, ", ?");
	buf_append_char(&insert, ')');
	table->select = buf_take_string(&select);
	table->insert = buf_take_string(&insert);
}

/* The derived field of `to` that shows this relation; NULL if it does not. */
static const struct class_field *shown_by(
	const struct class *from, const struct class_field *field, const struct class *to)
{
	char *name CLEANUP_FREE = xasprintf("%s.%s", from->name, field->name);

	for (size_t i = 0; i < to->n_fields; i++)
		if (to->fields[i].type == FIELD_DERIVED && strcmp(to->fields[i].of, name) == 0)
			return &to->fields[i];
	return NULL;
}

static void describe_relations(struct pool_db *pool, const struct class_table *table)
{
	for (size_t i = 0; i < table->n_stored; i++) {
		const struct class_field *field = table->stored[i];
		const struct class *to = field->type == FIELD_REF ? class_find(field->of) : NULL;
		if (!to)
			continue;
		pool->relations =
			xrealloc(pool->relations, pool->n_relations + 1, sizeof(*pool->relations));
		pool->relations[pool->n_relations++] = (struct relation){.from = table,
			.field = field,
			.to = &pool->tables[to - classes],
			.shown = shown_by(table->class, field, to)};
	}
}

void class_tables_describe(struct pool_db *pool)
{
	pool->tables = xcalloc(n_classes, sizeof(*pool->tables));
	for (size_t i = 0; i < n_classes; i++)
		describe_table(&pool->tables[i], &classes[i]);
	for (size_t i = 0; i < n_classes; i++)
		describe_relations(pool, &pool->tables[i]);
}

int class_tables_sync(struct pool_db *pool, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n_classes; i++) {
		r = sync_table(pool, &pool->tables[i], fault);
		if (r == 0)
			r = ensure_index(pool, &pool->tables[i], "changed_gen", fault);
	}
	for (size_t i = 0; r == 0 && i < pool->n_relations; i++)
		r = ensure_index(
			pool, pool->relations[i].from, pool->relations[i].field->name, fault);
	return r;
}

void class_tables_close(struct pool_db *pool)
{
	for (size_t i = 0; pool->tables && i < n_classes; i++) {
		free(pool->tables[i].stored);
		free(pool->tables[i].select);
		free(pool->tables[i].insert);
	}
	free(pool->tables);
	free(pool->relations);
}
