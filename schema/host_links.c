/* SPDX-License-Identifier: Apache-2.0 */
/* How the hosts of a pool know each other, and who is between two pools. */
#include "base/alloc.h"
#include "schema/pool_private.h"

void host_link_clear(struct host_link *link)
{
	free(link->host);
	free(link->url);
	free(link->fingerprint);
	free(link->secret);
	*link = (struct host_link){0};
}

int host_link_set(struct pool_db *pool, const struct host_link *link, struct fault *fault)
{
	struct db_scope scope;

	int r = db_begin(pool->db, DB_WRITE, &scope, fault);
	if (r < 0)
		return r;
	r = db_run(pool->db, fault,
		"INSERT INTO host_links (host, url, fingerprint, secret) VALUES (?, ?, ?, ?) "
		"ON CONFLICT (host) DO UPDATE SET url = excluded.url, "
		"fingerprint = excluded.fingerprint, secret = excluded.secret",
		"tttt", link->host, link->url, link->fingerprint, link->secret);
	return db_end(&scope, r, fault);
}

static int read_links(struct pool_db *pool, const char *host, struct host_link **ret_links,
	size_t *ret_n, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int r = db_query(pool->db, &query, fault,
		"SELECT host, url, fingerprint, secret FROM host_links "
		"WHERE host = ifnull(?1, host) ORDER BY host",
		"t", host);

	while (r == 0 && (r = db_next(query, fault)) > 0) {
		*ret_links = xrealloc(*ret_links, *ret_n + 1, sizeof(**ret_links));
		(*ret_links)[(*ret_n)++] = (struct host_link){
			.host = xstrdup(db_column_text(query, 0)),
			.url = xstrdup(db_column_text(query, 1)),
			.fingerprint = xstrdup(db_column_text(query, 2)),
			.secret = xstrdup(db_column_text(query, 3)),
		};
		r = 0;
	}
	return r;
}

void host_links_free(struct host_link *links, size_t n)
{
	for (size_t i = 0; i < n; i++)
		host_link_clear(&links[i]);
	free(links);
}

static int load_links(struct pool_db *pool, const char *host, struct host_link **ret_links,
	size_t *ret_n, struct fault *fault)
{
	struct db_scope scope;

	*ret_links = NULL;
	*ret_n = 0;
	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	r = db_end(&scope, read_links(pool, host, ret_links, ret_n, fault), fault);
	if (r < 0) {
		host_links_free(*ret_links, *ret_n);
		*ret_links = NULL;
		*ret_n = 0;
	}
	return r;
}

int host_link_list(
	struct pool_db *pool, struct host_link **ret_links, size_t *ret_n, struct fault *fault)
{
	return load_links(pool, NULL, ret_links, ret_n, fault);
}

int host_link_get(
	struct pool_db *pool, const char *host, struct host_link *ret_link, struct fault *fault)
{
	struct host_link *links = NULL;
	size_t n = 0;
	int r = load_links(pool, host, &links, &n, fault);

	if (r < 0)
		return r;
	if (n > 0)
		*ret_link = links[0];
	free(links); /* its content, if any, was given away */
	return n > 0;
}

static int run(struct pool_db *pool, struct fault *fault, const char *sql, const char *host,
	const char *secret, const char *bundle)
{
	struct db_scope scope;
	int r = db_begin(pool->db, DB_WRITE, &scope, fault);

	if (r < 0)
		return r;
	return db_end(&scope, db_run(pool->db, fault, sql, "ttt", host, secret, bundle), fault);
}

int host_link_remove(struct pool_db *pool, const char *host, struct fault *fault)
{
	return run(pool, fault, "DELETE FROM host_links WHERE host = ?1 AND ?2 IS ?3", host, NULL,
		NULL);
}

/* --- Who coordinates ---------------------------------------------------------------------------
 */

int pool_db_get_term(struct pool_db *pool, int64_t *ret_term, struct fault *fault)
{
	struct db_scope scope;
	int r = db_begin(pool->db, DB_READ, &scope, fault);

	if (r < 0)
		return r;
	r = db_read_int(pool->db, ret_term, fault, "SELECT term FROM meta", "");
	return db_end(&scope, MIN(r, 0), fault);
}

int pool_db_set_term(struct pool_db *pool, int64_t term, struct fault *fault)
{
	struct db_scope scope;
	int r = db_begin(pool->db, DB_WRITE, &scope, fault);

	if (r < 0)
		return r;
	return db_end(
		&scope, db_run(pool->db, fault, "UPDATE meta SET term = ?", "i", term), fault);
}

/* --- Between two pools -------------------------------------------------------------------------
 */

int host_departure_record(struct pool_db *pool, const char *host, const char *secret,
	const char *bundle, struct fault *fault)
{
	return run(pool, fault,
		"INSERT INTO host_departures (host, secret, bundle) VALUES (?1, ?2, ?3) "
		"ON CONFLICT (host, secret) DO UPDATE SET bundle = excluded.bundle",
		host, secret, bundle);
}

int host_departure_forget(
	struct pool_db *pool, const char *host, const char *secret, struct fault *fault)
{
	return run(pool, fault,
		"DELETE FROM host_departures WHERE host = ?1 AND secret = ?2 AND ?3 IS NULL", host,
		secret, NULL);
}

static int find_departure(struct pool_db *pool, const char *host, const char *secret,
	char **ret_bundle, struct fault *fault)
{
	struct db_query *query CLEANUP_QUERY = NULL;
	int r = db_query(pool->db, &query, fault,
		"SELECT bundle FROM host_departures WHERE host = ? AND secret = ?", "tt", host,
		secret);

	if (r == 0)
		r = db_next(query, fault);
	if (r > 0) {
		const char *bundle = db_column_text(query, 0);
		*ret_bundle = bundle ? xstrdup(bundle) : NULL;
	}
	return r;
}

int host_departure_find(struct pool_db *pool, const char *host, const char *secret,
	char **ret_bundle, struct fault *fault)
{
	struct db_scope scope;

	*ret_bundle = NULL;
	int r = db_begin(pool->db, DB_READ, &scope, fault);
	if (r < 0)
		return r;
	return db_end(&scope, find_departure(pool, host, secret, ret_bundle, fault), fault);
}
