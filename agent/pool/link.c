/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/link.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"
#include "xmlrpc/client.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#define SESSION_PREFIX "ferry-host/"
#define IDLE_MAX       8
/* A statement waits for other writers on the coordinator, for less than that. */
#define DB_TIMEOUT_USEC         (10 * USEC_PER_SEC)
#define DB_PATIENCE_USEC        (3 * USEC_PER_SEC)
#define DB_COMMIT_PATIENCE_USEC (30 * USEC_PER_SEC)

struct link {
	char *url;
	char *fingerprint;
	char *session;
	pthread_mutex_t lock; /* guards the rest */
	struct client *idle[IDLE_MAX];
	size_t n_idle;
	bool is_away; /* as the log has it */
};

int rank_compare(const struct rank *a, const struct rank *b)
{
	if (a->term != b->term)
		return a->term < b->term ? -1 : 1;
	return strcmp(a->coordinator, b->coordinator);
}

char *link_session_format(const char *host, const char *secret, const struct rank *rank)
{
	return xasprintf(SESSION_PREFIX "%s/%s/%" PRId64 "/%s", host, secret, rank ? rank->term : 0,
		rank ? rank->coordinator : "");
}

/* Up to the next slash, or the end; *at stands behind it. */
static char *take_part(const char **at)
{
	size_t length = strcspn(*at, "/");
	char *part = xstrndup(*at, length);

	*at += length + ((*at)[length] == '/');
	return part;
}

void link_caller_clear(struct link_caller *caller)
{
	free(caller->host);
	free(caller->secret);
	free(caller->coordinator);
	*caller = (struct link_caller){0};
}

bool link_session_parse(const char *session, struct link_caller *ret_caller)
{
	const char *at = session + strlen(SESSION_PREFIX);
	int64_t term = 0;

	if (strncmp(session, SESSION_PREFIX, strlen(SESSION_PREFIX)) != 0)
		return false;
	struct link_caller caller CLEANUP_LINK_CALLER = {0};
	caller.host = take_part(&at);
	caller.secret = take_part(&at);
	char *text CLEANUP_FREE = take_part(&at);
	if (parse_int64(text, &term) < 0)
		return false;
	caller.coordinator = take_part(&at);
	caller.rank = (struct rank){term, caller.coordinator};
	*ret_caller = caller;
	caller = (struct link_caller){0};
	return true;
}

bool link_secret_is(const char *secret, const char *expected)
{
	size_t length = strlen(expected);
	unsigned char difference = 0;

	if (length == 0 || strlen(secret) != length)
		return false;
	for (size_t i = 0; i < length; i++)
		difference |= (unsigned char)(secret[i] ^ expected[i]);
	return difference == 0;
}

struct link *link_new(const char *url, const char *fingerprint, const char *host,
	const char *secret, const struct rank *rank)
{
	struct link *link = xcalloc(1, sizeof(*link));

	link->url = xstrdup(url);
	link->fingerprint = xstrdup(fingerprint);
	link->session = link_session_format(host, secret, rank);
	pthread_mutex_init(&link->lock, NULL);
	return link;
}

struct link *link_free(struct link *link)
{
	if (!link)
		return NULL;
	for (size_t i = 0; i < link->n_idle; i++)
		client_free(link->idle[i]);
	pthread_mutex_destroy(&link->lock);
	free(link->session);
	free(link->fingerprint);
	free(link->url);
	free(link);
	return NULL;
}

static struct client *take_client(struct link *link)
{
	SCOPE_LOCK(&link->lock);
	if (link->n_idle > 0)
		return link->idle[--link->n_idle];
	return client_new(&(struct client_params){
		.url = link->url, .fingerprint = link->fingerprint, .quiet = true});
}

/* NULL when it was kept. */
static struct client *keep_client(struct link *link, struct client *client)
{
	SCOPE_LOCK(&link->lock);
	if (link->n_idle == IDLE_MAX)
		return client;
	link->idle[link->n_idle++] = client;
	return NULL;
}

/* In the log once, however often it is tried. A wait that is long by itself says nothing, and who
 * greets tells of it. */
static void note(struct link *link, const char *verb, int r, const struct fault *fault)
{
	bool is_away = r < 0 && r != -EREMOTEIO;
	bool waits = strcmp(verb, "execute") == 0 || strcmp(verb, "await") == 0;

	if (r == -ECANCELED || (r == -ETIMEDOUT && waits) || strcmp(verb, "greet") == 0)
		return;
	SCOPE_LOCK(&link->lock);
	if (is_away == link->is_away)
		return;
	link->is_away = is_away;
	if (!is_away) {
		log_info("POOL_CALLS_ANSWERED", "peer=%s method=Pool.%s", link->url, verb);
		return;
	}
	char *text CLEANUP_FREE = fault_describe(fault);
	log_warn("POOL_CALLS_FAIL", "peer=%s method=Pool.%s error=\"%s\": tried again in silence",
		link->url, verb, text);
}

int link_call(struct link *link, const char *verb, struct value *args, uint64_t timeout_usec,
	struct cancel *cancel, struct value **ret_result, struct fault *fault)
{
	struct value *owned CLEANUP_VALUE = args;
	struct value *params CLEANUP_VALUE = value_new_array();
	char *method CLEANUP_FREE = xasprintf("Pool.%s", verb);
	struct client *client CLEANUP_CLIENT = take_client(link);

	value_append_string(params, link->session);
	for (size_t i = 0; owned && i < owned->array.n_items; i++)
		value_append(params, value_copy(owned->array.items[i]));
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = client_call(
		client, method, params, clock_deadline(timeout_usec), cancel, ret_result, &why);
	note(link, verb, r, &why);
	if (r < 0)
		fault_move(fault, &why);
	if (r == 0 || r == -EREMOTEIO)
		client = keep_client(link, client);
	return r;
}

bool link_was_not_sent(int result)
{
	return result == -ECONNREFUSED || result == -EHOSTUNREACH || result == -EKEYREJECTED;
}

static int carry(void *arg, const char *request, char **ret_answer, struct fault *fault)
{
	struct value *answer CLEANUP_VALUE = NULL;
	struct value *args = value_new_array();
	int r = link_call(arg, "db_run", value_append_string(args, request), DB_TIMEOUT_USEC, NULL,
		&answer, fault);

	if (r == 0)
		*ret_answer = xstrdup(value_string(answer, ""));
	return r;
}

struct db_transport link_transport(struct link *link)
{
	return (struct db_transport){.call = carry,
		.arg = link,
		.patience_usec = DB_PATIENCE_USEC,
		.commit_patience_usec = DB_COMMIT_PATIENCE_USEC};
}
