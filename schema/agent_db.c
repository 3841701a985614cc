/* SPDX-License-Identifier: Apache-2.0 */
#include "schema/agent_db.h"

#include "base/alloc.h"
#include "base/json.h"
#include "schema/agent_private.h"
#include "schema/migrations.h"

#include <string.h>

#define AGENT_APPLICATION_ID 0x46727941 /* "FryA" */

int agent_db_open(const char *path, struct agent_db **ret_db, struct fault *fault)
{
	const struct db_kind kind = {.name = "agent",
		.application_id = AGENT_APPLICATION_ID,
		.migrations = agent_migrations,
		.n_migrations = n_agent_migrations};
	struct agent_db *agent CLEANUP_AGENT_DB = xcalloc(1, sizeof(*agent));

	int r = db_open(path, &kind, &agent->db, fault);
	if (r < 0)
		return r;
	*ret_db = TAKE_PTR(agent);
	return 0;
}

struct agent_db *agent_db_close(struct agent_db *agent)
{
	if (!agent)
		return NULL;
	db_close(agent->db);
	free(agent);
	return NULL;
}

int agent_db_transaction(struct agent_db *agent, agent_db_fn fn, void *arg, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, fn(agent, arg, fault), fault);
}

char *document_text(const struct value *document)
{
	struct buf json CLEANUP_BUF = BUF_INIT;

	if (!document)
		return NULL;
	json_encode(document, &json);
	return buf_take_string(&json);
}

int document_parse(
	struct db_query *query, int column, struct value **ret_document, struct fault *fault)
{
	const char *json = db_column_text(query, column);

	if (json)
		return json_decode(json, strlen(json), NULL, ret_document, fault);
	*ret_document = NULL;
	return 0;
}
