/* SPDX-License-Identifier: Apache-2.0 */
/* Who is logged in. The rows of class session are the truth that survives a restart; the sessions
 * of users are also kept in memory, so that a call costs no database access. Sessions of migrations
 * (made and ended by agent/migrate) are read from the database each time. */
#ifndef FERRY_AGENT_API_SESSIONS_H
#define FERRY_AGENT_API_SESSIONS_H

#include "agent/api/roles.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdbool.h>
#include <stdint.h>

/* XenAPI's limits, per user name and per originator: the session idle longest gives way. */
#define SESSIONS_MAX 500
/* last_active is written at most this often (threshold_last_active). */
#define SESSIONS_WRITE_USEC (UINT64_C(600) * 1000000)
/* In the other_config of a session that supervisor_receive made. */
#define SESSION_MIGRATION_KEY "ferry:migration"

struct sessions;

enum session_kind { SESSION_USER, SESSION_MIGRATION };

struct session_owner {
	enum session_kind kind;
	char *user; /* owned; NULL for SESSION_MIGRATION */
	enum user_role role;
};

struct sessions_params {
	struct pool_db *pool; /* borrowed */
	const char *host_ref;
	bool is_member;        /* users log in at the coordinator */
	uint64_t timeout_usec; /* idle longer: gone */
	/* Whether work of that session is under way, which keeps it; called without locks. */
	bool (*is_busy)(void *arg, const char *session);
	/* A session has ended; called without locks, from the thread that ended it. */
	void (*ended)(void *arg, const char *session);
	void *arg;
};

/* Takes in the stored sessions. Blocks on the database, as all calls here. */
int sessions_new(
	const struct sessions_params *params, struct sessions **ret_sessions, struct fault *fault);
struct sessions *sessions_free(struct sessions *sessions);

/* Makes a session for an authenticated user. The caller frees *ret_ref. */
int sessions_login(struct sessions *sessions, const char *user, const char *originator,
	char **ret_ref, struct fault *fault);
/* 0, and the session counts as active now; or -EACCES with SESSION_INVALID [ref]. */
int sessions_check(struct sessions *sessions, const char *ref, struct session_owner *ret_owner,
	struct fault *fault);
/* The user is something else now, or, with the second, no user any more. */
void sessions_set_role(struct sessions *sessions, const char *user, enum user_role role);
void sessions_end_user(struct sessions *sessions, const char *user);
int sessions_logout(struct sessions *sessions, const char *ref, struct fault *fault);
uint64_t sessions_timeout_usec(const struct sessions *sessions);
/* Ends those idle for too long. */
void sessions_expire(struct sessions *sessions);

void session_owner_clear(struct session_owner *owner);
#define CLEANUP_SESSION_OWNER CLEANUP(session_owner_clear)

#endif
