/* SPDX-License-Identifier: Apache-2.0 */
/* Statements and their parameters, whatever the back end. */
#include "schema/db_private.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>

void db_cell_clear(struct db_cell *cell)
{
	free(cell->text);
	*cell = (struct db_cell){0};
}

struct db_query *db_query_free(struct db_query *query)
{
	if (query)
		query->db->backend->release(query);
	return NULL;
}

static int prepare(struct db *db, const char *sql, struct db_query **ret_query, struct fault *fault)
{
	assert(db->depth > 0);
	/* Some failures (disk full, I/O error) undo the transaction by themselves. What follows in
	 * the scope must not run outside of one. */
	if (db->backend->is_undone(db))
		return db_fault_undone(db, fault);
	return db->backend->prepare(db, sql, ret_query, fault);
}

static struct db_parameter next_parameter(char type, va_list *args)
{
	struct db_parameter parameter = {.type = type};

	switch (type) {
	case 't':
		parameter.text = va_arg(*args, const char *);
		if (!parameter.text)
			parameter.type = 'n';
		break;
	case 'i':
		parameter.integer = va_arg(*args, int64_t);
		break;
	case 'f':
		parameter.real = va_arg(*args, double);
		break;
	default:
		assert(type == 'b');
		parameter.data = va_arg(*args, const void *);
		parameter.length = va_arg(*args, size_t);
		break;
	}
	return parameter;
}

static int bind_all(struct db_query *query, struct fault *fault, const char *types, va_list *args)
{
	int r = 0;

	for (int i = 0; r == 0 && types[i]; i++) {
		struct db_parameter parameter = next_parameter(types[i], args);
		r = query->db->backend->bind(query, i + 1, &parameter, fault);
	}
	return r;
}

static int query_va(struct db *db, struct db_query **ret_query, struct fault *fault,
	const char *sql, const char *types, va_list *args)
{
	struct db_query *query CLEANUP_QUERY = NULL;

	int r = prepare(db, sql, &query, fault);
	if (r == 0)
		r = bind_all(query, fault, types, args);
	if (r < 0)
		return r;
	*ret_query = TAKE_PTR(query);
	return 0;
}

int db_query(struct db *db, struct db_query **ret_query, struct fault *fault, const char *sql,
	const char *types, ...)
{
	va_list args;

	va_start(args, types);
	int r = query_va(db, ret_query, fault, sql, types, &args);
	va_end(args);
	return r;
}

int db_rebind(struct db_query *query, struct fault *fault, const char *types, ...)
{
	va_list args;

	query->db->backend->reset(query);
	va_start(args, types);
	int r = bind_all(query, fault, types, &args);
	va_end(args);
	return r;
}

int db_bind_cell(
	struct db_query *query, int position, const struct db_cell *cell, struct fault *fault)
{
	static const char types[] = {
		[DB_NULL] = 'n', [DB_INT] = 'i', [DB_REAL] = 'f', [DB_TEXT] = 't'};
	const struct db_parameter parameter = {.type = types[cell->type],
		.integer = cell->integer,
		.real = cell->real,
		.text = cell->text};

	return query->db->backend->bind(query, position, &parameter, fault);
}

int db_start(struct db_query *query, struct fault *fault)
{
	return query->db->backend->start(query, fault);
}

int db_next(struct db_query *query, struct fault *fault)
{
	return query->db->backend->next(query, fault);
}

int db_finish(struct db_query *query, struct fault *fault)
{
	return query->db->backend->finish(query, fault);
}

int db_run(struct db *db, struct fault *fault, const char *sql, const char *types, ...)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	va_list args;

	va_start(args, types);
	int r = query_va(db, &query, fault, sql, types, &args);
	va_end(args);
	return r < 0 ? r : db_finish(query, fault);
}

int db_read_int(struct db *db, int64_t *ret_value, struct fault *fault, const char *sql,
	const char *types, ...)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	va_list args;

	va_start(args, types);
	int r = query_va(db, &query, fault, sql, types, &args);
	va_end(args);
	if (r == 0)
		r = db_next(query, fault);
	if (r > 0)
		*ret_value = db_column_int(query, 0);
	return r;
}

int64_t db_changes(struct db *db)
{
	return db->backend->changes(db);
}

int64_t db_column_int(struct db_query *query, int column)
{
	return query->db->backend->column_int(query, column);
}

double db_column_real(struct db_query *query, int column)
{
	return query->db->backend->column_real(query, column);
}

const char *db_column_text(struct db_query *query, int column)
{
	return query->db->backend->column_text(query, column);
}

const void *db_column_blob(struct db_query *query, int column, size_t *ret_length)
{
	return query->db->backend->column_blob(query, column, ret_length);
}
