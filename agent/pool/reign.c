/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/reign.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define ASK_USEC     (2 * USEC_PER_SEC)
#define ASK_ALL_USEC (10 * USEC_PER_SEC)
#define FOLLOW_USEC  (5 * USEC_PER_SEC)

/* --- Whether it is replaced --------------------------------------------------------------------
 */

int reign_fault(
	struct fault *fault, const struct rank *rank, const char *url, const char *fingerprint)
{
	char *term CLEANUP_FREE = xasprintf("%" PRId64, rank->term);

	return fault_set(
		fault, -ESTALE, "FERRY_OVERRULED", term, rank->coordinator, url, fingerprint, NULL);
}

static bool read_fault(const struct fault *fault, struct membership *ret_by)
{
	int64_t term = 0;

	if (!fault_is(fault, "FERRY_OVERRULED") || fault->n_params != 4 ||
		parse_int64(fault->params[0], &term) < 0)
		return false;
	*ret_by = (struct membership){
		.host = xstrdup(""),
		.url = xstrdup(fault->params[2]),
		.fingerprint = xstrdup(fault->params[3]),
		.secret = xstrdup(""),
		.coordinator = xstrdup(fault->params[1]),
		.term = term,
		.kind = MEMBERSHIP_OVERRULED,
	};
	return true;
}

bool reign_ask(
	struct link *link, uint64_t timeout_usec, struct cancel *cancel, struct membership *ret_by)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	int r = link_call(link, "whom", NULL, timeout_usec, cancel, &result, &fault);

	return r == -EREMOTEIO && read_fault(&fault, ret_by);
}

bool reign_ask_all(struct pool_db *pool, const char *host, struct membership *ret_by)
{
	uint64_t deadline = clock_deadline(ASK_ALL_USEC);
	struct rank rank = {0, host};
	struct host_link *links = NULL;
	size_t n = 0;
	bool is_overruled = false;

	if (pool_db_get_term(pool, &rank.term, NULL) == 0)
		host_link_list(pool, &links, &n, NULL);
	for (size_t i = 0; i < n && !is_overruled && clock_now_usec() < deadline; i++) {
		if (strcmp(links[i].host, host) == 0)
			continue;
		struct link *link CLEANUP_LINK = link_new(
			links[i].url, links[i].fingerprint, links[i].host, links[i].secret, &rank);
		is_overruled = reign_ask(link, ASK_USEC, NULL, ret_by);
	}
	host_links_free(links, n);
	return is_overruled;
}

int reign_end(const char *state_dir, struct pool_db *pool, const char *host, struct membership *by,
	struct fault *fault)
{
	struct host_link link CLEANUP_HOST_LINK = {0};
	int r = host_link_get(pool, by->coordinator, &link, fault);

	if (r < 0)
		return r;
	if (r == 0)
		return fault_text(fault, -ENOENT,
			"a host of this pool follows the coordinator %s at %s, which this pool "
			"does "
			"not know",
			by->coordinator, by->url);
	free(by->host);
	free(by->secret);
	by->host = xstrdup(host);
	by->secret = xstrdup(link.secret);
	by->kind = MEMBERSHIP_OVERRULED;
	r = membership_store(state_dir, by, fault);
	if (r == 0)
		log_error("COORDINATOR_OVERRULED",
			"by=%s term=%" PRId64
			": this host coordinates its pool no more, and does nothing until "
			"pool.recover_slaves there takes it in",
			by->url, by->term);
	return r;
}

/* --- Following ---------------------------------------------------------------------------------
 */

/* One host that is told, in a thread of its own: one that is lost keeps no other waiting. */
struct telling {
	const struct host_link *host;
	const struct rank *rank;
	const char *url;
	const char *fingerprint;
	pthread_t thread;
	bool has_thread;
	bool follows;
};

static void *tell(void *arg)
{
	struct telling *telling = arg;
	const struct host_link *host = telling->host;
	struct link *link CLEANUP_LINK =
		link_new(host->url, host->fingerprint, host->host, host->secret, telling->rank);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	struct value *args = value_append_string(value_new_array(), telling->url);

	value_append_string(args, telling->fingerprint);
	telling->follows = link_call(link, "follow", args, FOLLOW_USEC, NULL, &result, &fault) == 0;
	if (telling->follows)
		return NULL;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("HOST_NOT_RECOVERED", "host=%s error=\"%s\"", host->host, text);
	return NULL;
}

int reign_recover(struct pool_db *pool, const struct rank *rank, const char *url,
	const char *fingerprint, struct value **ret_hosts, struct fault *fault)
{
	struct host_link *links = NULL;
	size_t n = 0;
	int r = host_link_list(pool, &links, &n, fault);

	if (r < 0)
		return r;
	struct telling *tellings CLEANUP_FREE = xcalloc(n + 1, sizeof(*tellings));
	for (size_t i = 0; i < n; i++) {
		struct telling *telling = &tellings[i];
		*telling = (struct telling){
			.host = &links[i], .rank = rank, .url = url, .fingerprint = fingerprint};
		if (strcmp(links[i].host, rank->coordinator) == 0 || !*links[i].secret)
			continue;
		telling->has_thread = pthread_create(&telling->thread, NULL, tell, telling) == 0;
		if (!telling->has_thread)
			tell(telling);
	}
	*ret_hosts = value_new_array();
	for (size_t i = 0; i < n; i++) {
		if (tellings[i].has_thread)
			pthread_join(tellings[i].thread, NULL);
		if (tellings[i].follows)
			value_append_string(*ret_hosts, links[i].host);
	}
	host_links_free(links, n);
	return 0;
}

/* --- Doubt --------------------------------------------------------------------------------------
 */

static char *doubt_file(const char *state_dir)
{
	return xasprintf("%s/doubt", state_dir);
}

int reign_doubt(const char *state_dir, struct fault *fault)
{
	char *path CLEANUP_FREE = doubt_file(state_dir);
	int r = io_replace_file(path, "", 0, 0600);

	return r < 0 ? fault_errno(fault, r, "cannot write %s", path) : 0;
}

bool reign_is_doubtful(const char *state_dir)
{
	char *path CLEANUP_FREE = doubt_file(state_dir);

	return access(path, F_OK) == 0;
}

void reign_trust(const char *state_dir)
{
	char *path CLEANUP_FREE = doubt_file(state_dir);

	unlink(path);
}
