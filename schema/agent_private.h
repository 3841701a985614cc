/* SPDX-License-Identifier: Apache-2.0 */
/* What the files behind agent_db.h share. Private to them. Every function here is called inside a
 * scope of agent->db. */
#ifndef FERRY_SCHEMA_AGENT_PRIVATE_H
#define FERRY_SCHEMA_AGENT_PRIVATE_H

#include "schema/agent_db.h"
#include "schema/db.h"

struct agent_db {
	struct db *db;
};

/* The row id of a migration; -ENOENT with a fault when there is none. */
int migration_find_id(
	struct agent_db *agent, const char *uuid, int64_t *ret_id, struct fault *fault);
/* -EINVAL unless it is one or more whole sectors of 512 bytes that end below 2^63. */
int extent_check(struct extent extent, struct fault *fault);
static inline uint64_t extent_end(struct extent extent)
{
	return extent.offset + extent.length;
}
/* A value as JSON text; the caller frees it. NULL gives NULL. */
char *document_text(const struct value *document);
/* The value in a column of JSON text; NULL for NULL. -EBADMSG when it is no JSON. */
int document_parse(
	struct db_query *query, int column, struct value **ret_document, struct fault *fault);

#endif
