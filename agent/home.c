/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/home.h"

#include "agent/pool/join.h"
#include "agent/pool/leave.h"
#include "agent/pool/member.h"
#include "agent/pool/reign.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RETRY_USEC (2 * USEC_PER_SEC)
/* What step() says when it is to be done again, at once or later. */
#define AGAIN 1
#define LATER 2

static char *pool_file(const struct home_params *params)
{
	return xasprintf("%s/pool.db", params->config->state_dir);
}

/* Another host may have taken over while this one was away: the others know. 1: it has. */
static int ask_others(const struct home_params *params, struct home *home, struct fault *fault)
{
	struct membership by CLEANUP_MEMBERSHIP = {0};
	struct value *pools CLEANUP_VALUE = NULL;
	char *self CLEANUP_FREE = NULL;
	int r = object_get_all(home->pool, "pool", &pools, fault);

	if (r < 0 || pools->array.n_items == 0)
		return r;
	r = object_get_string(
		home->pool, "pool", pools->array.items[0]->string, "master", &self, fault);
	if (r < 0 || !reign_ask_all(home->pool, self, &by))
		return r;
	r = reign_end(params->config->state_dir, home->pool, self, &by, fault);
	return r < 0 ? r : 1;
}

static int open_own(const struct home_params *params, struct home *home, struct fault *fault)
{
	char *path CLEANUP_FREE = pool_file(params);
	int r = pool_db_open(path, &home->pool, fault);

	if (r == 0)
		r = ask_others(params, home, fault);
	if (r > 0)
		return AGAIN;
	return r < 0 ? r : pool_db_serve(home->pool, fault);
}

/* The database that this host had before it joined is of no pool any more; it is kept for people.
 */
static int set_aside(const struct home_params *params, struct fault *fault)
{
	static const char *const suffixes[] = {"-wal", "-shm", ""};
	char *path CLEANUP_FREE = pool_file(params);

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char *from CLEANUP_FREE = xasprintf("%s%s", path, suffixes[i]);
		char *to CLEANUP_FREE = xasprintf("%s.before-join%s", path, suffixes[i]);
		if (rename(from, to) < 0 && errno != ENOENT) {
			int error = -errno;
			return fault_errno(fault, error, "cannot rename %s", from);
		}
	}
	return 0;
}

char *home_address(const char *coordinator, const char *own)
{
	const char *host = strstr(coordinator, "://");
	const char *port = strrchr(coordinator, ':');
	const char *own_port = strrchr(own, ':');

	host = host ? host + 3 : coordinator;
	if (port && port > host && own_port && strcmp(port, own_port) == 0)
		return xstrndup(host, (size_t)(port - host));
	return xstrdup(host);
}

static void open_remote(const struct home_params *params, struct home *home)
{
	struct db_transport transport = link_transport(home->link);

	home->pool = pool_db_open_remote(&transport);
	home->coordinator_address = home_address(home->membership.url, params->url);
}

/* This host was ejected: a pool of its own, from what it takes along. */
static int move_out(const struct home_params *params, struct home *home, struct fault *fault)
{
	const struct config *config = params->config;
	char *bundle CLEANUP_FREE = NULL;
	int r = member_take_leave(home->link, &home->membership, &bundle, fault);

	if (r == -ENOENT)
		return r;
	if (r < 0)
		return LATER;
	r = leave_make_pool(config->state_dir, bundle, config->pool_name, fault);
	if (r == 0)
		r = membership_remove(config->state_dir, fault);
	if (r < 0)
		return r;
	member_left(home->link, &home->membership);
	log_info("POOL_LEFT", "coordinator=%s", home->membership.url);
	return AGAIN;
}

static void make_link(struct home *home)
{
	const struct membership *membership = &home->membership;
	const struct rank rank = {membership->term, membership->coordinator};

	link_free(home->link);
	home->link = link_new(membership->url, membership->fingerprint, membership->host,
		membership->secret, &rank);
}

static int go_in(const struct home_params *params, struct home *home, struct fault *fault)
{
	bool is_new = false;
	int r = set_aside(params, fault);

	if (r < 0)
		return r;
	make_link(home);
	r = member_greet(
		home->link, params->url, params->fingerprint, &home->membership, &is_new, fault);
	if (r == -EACCES)
		return move_out(params, home, fault);
	if (r < 0)
		return LATER;
	if (is_new) {
		r = membership_store(params->config->state_dir, &home->membership, fault);
		if (r < 0)
			return r;
		make_link(home);
	}
	open_remote(params, home);
	return 0;
}

static int say_overruled(const struct home *home, struct fault *fault)
{
	fault_text(fault, -ESTALE,
		"this host was the pool's coordinator, and %s has taken over: it does nothing "
		"until "
		"pool.recover_slaves there makes it a member",
		home->membership.url);
	return LATER;
}

static int step(const struct home_params *params, struct home *home, struct fault *fault)
{
	int r = membership_load(params->config->state_dir, &home->membership, fault);

	if (r < 0)
		return r;
	if (r == 0)
		return open_own(params, home, fault);
	if (home->membership.kind == MEMBERSHIP_OVERRULED)
		return say_overruled(home, fault);
	if (home->membership.kind == MEMBERSHIP_FULL)
		return go_in(params, home, fault);
	return join_settle(params->config->state_dir, &home->membership, fault) < 0 ? LATER : AGAIN;
}

int home_open(const struct home_params *params, struct home *ret_home, struct fault *fault)
{
	for (;;) {
		struct fault why CLEANUP_FAULT = FAULT_INIT;
		struct home home CLEANUP(home_close) = {0};
		int r = step(params, &home, &why);
		if (r < 0) {
			fault_move(fault, &why);
			return r;
		}
		if (r == 0) {
			*ret_home = home;
			home = (struct home){0};
			return 0;
		}
		char *text CLEANUP_FREE = r == LATER ? fault_describe(&why) : NULL;
		if (text && !params->wait(params->arg, RETRY_USEC, &home.membership, text))
			return fault_text(fault, -ECANCELED,
				"stopped while waiting for the pool's coordinator: %s", text);
	}
}

void home_close(struct home *home)
{
	if (home->pool)
		pool_db_close(home->pool);
	link_free(home->link);
	membership_clear(&home->membership);
	free(home->coordinator_address);
	*home = (struct home){0};
}
