/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/roster.h"

#include "agent/pool/host_moves.h"
#include "agent/pool/reign.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#define WATCH_USEC USEC_PER_SEC
/* host_metrics is written no more often than that while nothing but its time changes: every write
 * is an event for every client. */
#define WRITE_USEC (10 * USEC_PER_SEC)
/* One of the silent hosts is asked that often. */
#define ASK_USEC         (2 * USEC_PER_SEC)
#define ASK_TIMEOUT_USEC (2 * USEC_PER_SEC)
#define MAX_ASKED        64

struct entry {
	struct entry *next;
	char *host;
	char *secret;
	struct link *link;
	uint64_t heard_usec;
	uint64_t written_usec; /* 0: never */
	bool is_live;          /* as stored, if written */
	bool is_gone;
};

struct roster {
	struct pool_db *pool;
	struct rank rank;
	char *host; /* rank's */
	void (*overruled)(void *arg, struct membership *by);
	void *arg;
	uint64_t asked_usec;
	size_t n_asked;
	struct cancel *closing;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* guards the rest */
	struct entry *first;
};

/* With the lock held. */
static struct entry *find(struct roster *roster, const char *host)
{
	struct entry *entry = roster->first;

	while (entry && (entry->is_gone || strcmp(entry->host, host) != 0))
		entry = entry->next;
	return entry;
}

bool roster_is_alone(struct roster *roster)
{
	SCOPE_LOCK(&roster->lock);
	for (const struct entry *entry = roster->first; entry; entry = entry->next)
		if (!entry->is_gone)
			return false;
	return true;
}

void roster_add(struct roster *roster, const struct host_link *link)
{
	struct entry *entry = xcalloc(1, sizeof(*entry));

	entry->host = xstrdup(link->host);
	entry->secret = xstrdup(link->secret);
	entry->link =
		link_new(link->url, link->fingerprint, link->host, link->secret, &roster->rank);
	entry->heard_usec = clock_now_usec();
	SCOPE_LOCK(&roster->lock);
	struct entry *before = find(roster, link->host);
	if (before)
		before->is_gone = true;
	entry->next = roster->first;
	roster->first = entry;
}

void roster_remove(struct roster *roster, const char *host)
{
	SCOPE_LOCK(&roster->lock);
	struct entry *entry = find(roster, host);

	if (entry)
		entry->is_gone = true;
}

int roster_link(
	struct roster *roster, const char *host, struct link **ret_link, struct fault *fault)
{
	SCOPE_LOCK(&roster->lock);
	struct entry *entry = find(roster, host);

	if (!entry || clock_now_usec() - entry->heard_usec > ROSTER_SILENT_USEC)
		return fault_set(fault, -EHOSTDOWN, "HOST_OFFLINE", host, NULL);
	*ret_link = entry->link;
	return 0;
}

size_t roster_live(struct roster *roster, struct link ***ret_links)
{
	SCOPE_LOCK(&roster->lock);
	uint64_t now = clock_now_usec();
	struct link **links = NULL;
	size_t n = 0;

	for (struct entry *entry = roster->first; entry; entry = entry->next) {
		if (entry->is_gone || now - entry->heard_usec > ROSTER_SILENT_USEC)
			continue;
		links = xrealloc(links, n + 1, sizeof(struct link *));
		links[n++] = entry->link;
	}
	*ret_links = links;
	return n;
}

bool roster_knows(struct roster *roster, const char *host, const char *secret)
{
	SCOPE_LOCK(&roster->lock);
	struct entry *entry = find(roster, host);

	return entry && link_secret_is(secret, entry->secret);
}

/* --- What is stored ----------------------------------------------------------------------------
 */

static int store(
	struct roster *roster, const char *host, const struct value *fields, struct fault *fault)
{
	char *metrics CLEANUP_FREE = NULL;
	int r = object_get_string(roster->pool, "host", host, "metrics", &metrics, fault);

	return r < 0 ? r : object_set_fields(roster->pool, "host_metrics", metrics, fields, fault);
}

static void store_or_log(struct roster *roster, const char *host, const struct value *fields)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (store(roster, host, fields, &fault) < 0 && !fault_is(&fault, "HANDLE_INVALID")) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("HOST_METRICS_NOT_STORED", "host=%s error=\"%s\"", host, text);
	}
}

/* Whether it is to be written. ret_news: it was silent, or is new. */
static bool note_tick(struct roster *roster, const char *host, bool *ret_news)
{
	SCOPE_LOCK(&roster->lock);
	struct entry *entry = find(roster, host);
	uint64_t now = clock_now_usec();

	if (!entry)
		return false;
	entry->heard_usec = now;
	*ret_news = !entry->written_usec || !entry->is_live;
	if (!*ret_news && now - entry->written_usec < WRITE_USEC)
		return false;
	entry->written_usec = now;
	entry->is_live = true;
	return true;
}

void roster_heard(
	struct roster *roster, const char *host, int64_t memory_total, int64_t memory_free)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	bool is_news = false;

	if (!note_tick(roster, host, &is_news))
		return;
	if (is_news)
		log_info("HOST_LIVE", "host=%s", host);
	value_set_bool(fields, "live", true);
	value_set_int(fields, "memory_total", memory_total);
	value_set_int(fields, "memory_free", memory_free);
	value_set(fields, "last_updated", value_new_datetime(clock_wall_sec()));
	store_or_log(roster, host, fields);
	if (is_news)
		host_moves_trust(roster->pool, host);
}

/* One that has just fallen silent; the caller frees it. NULL: none. */
static char *take_silent(struct roster *roster)
{
	SCOPE_LOCK(&roster->lock);
	uint64_t now = clock_now_usec();

	for (struct entry *entry = roster->first; entry; entry = entry->next) {
		if (entry->is_gone || now - entry->heard_usec <= ROSTER_SILENT_USEC ||
			(entry->written_usec && !entry->is_live))
			continue;
		entry->is_live = false;
		entry->written_usec = now;
		return xstrdup(entry->host);
	}
	return NULL;
}

/* One of those that do not tick; NULL: none. Another one each time. */
static struct link *pick_silent(struct roster *roster)
{
	SCOPE_LOCK(&roster->lock);
	struct link *silent[MAX_ASKED] = {0};
	size_t n = 0;
	uint64_t now = clock_now_usec();

	for (struct entry *entry = roster->first; entry && n < MAX_ASKED; entry = entry->next)
		if (!entry->is_gone && now - entry->heard_usec > ROSTER_DOUBT_USEC)
			silent[n++] = entry->link;
	return n ? silent[roster->n_asked++ % n] : NULL;
}

/* It may follow another coordinator by now. */
static void ask_silent(struct roster *roster)
{
	struct membership by CLEANUP_MEMBERSHIP = {0};

	if (!roster->overruled || clock_now_usec() - roster->asked_usec < ASK_USEC)
		return;
	roster->asked_usec = clock_now_usec();
	struct link *link = pick_silent(roster);
	if (link && reign_ask(link, ASK_TIMEOUT_USEC, roster->closing, &by))
		roster->overruled(roster->arg, &by);
}

static void *watch_main(void *arg)
{
	struct roster *roster = arg;
	struct value *fields CLEANUP_VALUE = value_new_struct();

	value_set_bool(fields, "live", false);
	while (cancel_sleep(roster->closing, WATCH_USEC) == 0) {
		char *host;
		while ((host = take_silent(roster))) {
			log_warn("HOST_SILENT", "host=%s seconds=%d", host,
				(int)(ROSTER_SILENT_USEC / USEC_PER_SEC));
			store_or_log(roster, host, fields);
			host_moves_doubt(roster->pool, host);
			free(host);
		}
		ask_silent(roster);
	}
	return NULL;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static int load(struct roster *roster, struct fault *fault)
{
	struct host_link *links = NULL;
	size_t n = 0;
	int r = host_link_list(roster->pool, &links, &n, fault);

	for (size_t i = 0; r == 0 && i < n; i++)
		if (strcmp(links[i].host, roster->host) != 0)
			roster_add(roster, &links[i]);
	host_links_free(links, n);
	return r;
}

int roster_new(const struct roster_params *params, struct roster **ret_roster, struct fault *fault)
{
	struct roster *roster = xcalloc(1, sizeof(*roster));
	sigset_t all, before;

	roster->pool = params->pool;
	roster->host = xstrdup(params->rank.coordinator);
	roster->rank = (struct rank){params->rank.term, roster->host};
	roster->overruled = params->overruled;
	roster->arg = params->arg;
	roster->closing = cancel_new();
	pthread_mutex_init(&roster->lock, NULL);
	int r = load(roster, fault);
	if (r == 0) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		r = -pthread_create(&roster->thread, NULL, watch_main, roster);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		roster->has_thread = r == 0;
		if (r < 0)
			fault_errno(fault, r, "cannot start the thread that watches the hosts");
	}
	if (r < 0) {
		roster_free(roster);
		return r;
	}
	*ret_roster = roster;
	return 0;
}

struct roster *roster_free(struct roster *roster)
{
	if (!roster)
		return NULL;
	cancel_request(roster->closing, "the agent is stopping");
	if (roster->has_thread)
		pthread_join(roster->thread, NULL);
	while (roster->first) {
		struct entry *entry = roster->first;
		roster->first = entry->next;
		link_free(entry->link);
		free(entry->host);
		free(entry->secret);
		free(entry);
	}
	cancel_free(roster->closing);
	pthread_mutex_destroy(&roster->lock);
	free(roster->host);
	free(roster);
	return NULL;
}
