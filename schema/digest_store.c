/* SPDX-License-Identifier: Apache-2.0 */
#include "schema/agent_private.h"

#include <errno.h>
#include <string.h>

static int store(struct agent_db *agent, const char *migration, unsigned disk, uint64_t span,
	const void *digests, size_t length, struct fault *fault)
{
	int64_t id = 0;

	int r = migration_find_id(agent, migration, &id, fault);
	if (r < 0)
		return r;
	return db_run(agent->db, fault,
		"INSERT INTO digests (migration, disk, span, digests) VALUES (?, ?, ?, ?) "
		"ON CONFLICT (migration, disk, span) DO UPDATE SET digests = excluded.digests",
		"iiib", id, (int64_t)disk, (int64_t)span, digests, length);
}

int digest_store(struct agent_db *agent, const char *migration, unsigned disk, uint64_t span,
	const void *digests, size_t length, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, store(agent, migration, disk, span, digests, length, fault), fault);
}

static int load(struct agent_db *agent, const char *migration, unsigned disk, uint64_t span,
	void *digests, size_t length, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int64_t id = 0;
	size_t found;

	int r = migration_find_id(agent, migration, &id, fault);
	if (r == 0)
		r = db_query(agent->db, &query, fault,
			"SELECT digests FROM digests WHERE migration = ? AND disk = ? AND span = ?",
			"iii", id, (int64_t)disk, (int64_t)span);
	if (r == 0)
		r = db_next(query, fault);
	if (r <= 0)
		return r;
	const void *data = db_column_blob(query, 0, &found);
	if (found != length)
		return fault_text(fault, -EBADMSG,
			"migration %s, disk %u, span %llu: %zu bytes of digests are stored, %zu "
			"were expected",
			migration, disk, (unsigned long long)span, found, length);
	memcpy(digests, data, length);
	return 1;
}

int digest_load(struct agent_db *agent, const char *migration, unsigned disk, uint64_t span,
	void *digests, size_t length, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(agent->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, load(agent, migration, disk, span, digests, length, fault), fault);
}
