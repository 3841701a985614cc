/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/sessions.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct session {
	struct session *next;
	char *ref;
	char *user;
	char *originator;
	enum user_role role;
	uint64_t active_usec;  /* last call */
	uint64_t written_usec; /* when last_active was last stored */
};

struct sessions {
	struct sessions_params params;
	char *host_ref;
	pthread_mutex_t lock; /* over the list */
	struct session *first;
};

static struct session *session_free(struct session *session)
{
	if (!session)
		return NULL;
	free(session->ref);
	free(session->user);
	free(session->originator);
	free(session);
	return NULL;
}

DEFINE_CLEANUP(struct session *, session_free)

static bool record_is_migration(const struct value *record)
{
	return value_find(value_find(record, "other_config"), SESSION_MIGRATION_KEY) != NULL;
}

/* Such a session is how the sender learns what was decided, however late it asks. Peer.finish and
 * Peer.abort take the migration's entry out again. */
static bool record_names_migration(const struct value *record)
{
	return value_find(record, "other_config")->record.n_members > 1;
}

static uint64_t record_age_usec(const struct value *record)
{
	const struct value *active = value_find(record, "last_active");
	int64_t age = clock_wall_sec() - (active ? active->integer : 0);

	return age > 0 ? (uint64_t)age * USEC_PER_SEC : 0;
}

/* --- The list; callers hold the lock ---------------------------------------------------------- */

static struct session **session_slot(struct sessions *sessions, const char *ref)
{
	struct session **p = &sessions->first;

	while (*p && strcmp((*p)->ref, ref) != 0)
		p = &(*p)->next;
	return p;
}

static struct session *session_take(struct session **slot)
{
	struct session *session = *slot;

	if (session)
		*slot = session->next;
	return session;
}

static bool session_is_idle(const struct sessions *sessions, const struct session *session)
{
	return clock_now_usec() - session->active_usec > sessions->params.timeout_usec;
}

static void session_insert(struct sessions *sessions, const char *ref, const char *user,
	const char *originator, enum user_role role, uint64_t age_usec)
{
	struct session *session = xcalloc(1, sizeof(*session));
	uint64_t now = clock_now_usec();

	session->ref = xstrdup(ref);
	session->user = xstrdup(user);
	session->originator = xstrdup(originator);
	session->role = role;
	/* Times before the machine's start cannot be written down: such a session is as old as
	 * can be. */
	session->active_usec = age_usec < now ? now - age_usec : 0;
	session->written_usec = session->active_usec;
	session->next = sessions->first;
	sessions->first = session;
}

/* --- Ending ------------------------------------------------------------------------------------
 */

/* The session is off the list: removes its row and tells. */
static int session_end(struct sessions *sessions, const char *ref, struct fault *fault)
{
	int r = object_destroy(sessions->params.pool, "session", ref, fault);

	sessions->params.ended(sessions->params.arg, ref);
	return r;
}

static void session_drop(
	struct sessions *sessions, const char *ref, const char *user, const char *why)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	log_info("session-ended", "user=\"%s\" why=\"%s\"", user, why);
	if (session_end(sessions, ref, &fault) < 0 && !fault_is(&fault, "HANDLE_INVALID")) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("session-row-left", "error=\"%s\"", text);
	}
}

/* Refs of the sessions that have been idle for too long. */
static struct value *sessions_list_idle(struct sessions *sessions)
{
	struct value *refs = value_new_array();

	SCOPE_LOCK(&sessions->lock);
	for (struct session *session = sessions->first; session; session = session->next) {
		if (session_is_idle(sessions, session))
			value_append_string(refs, session->ref);
	}
	return refs;
}

/* Takes it off the list unless it was used, or ended, since it was listed. */
static struct session *sessions_take_idle(struct sessions *sessions, const char *ref)
{
	struct session **slot;

	SCOPE_LOCK(&sessions->lock);
	slot = session_slot(sessions, ref);
	if (!*slot || !session_is_idle(sessions, *slot))
		return NULL;
	return session_take(slot);
}

static void sessions_keep(struct sessions *sessions, const char *ref)
{
	struct session *session;

	SCOPE_LOCK(&sessions->lock);
	session = *session_slot(sessions, ref);
	if (session)
		session->active_usec = clock_now_usec();
}

static void sessions_expire_users(struct sessions *sessions)
{
	struct value *idle CLEANUP_VALUE = sessions_list_idle(sessions);

	for (size_t i = 0; i < idle->array.n_items; i++) {
		const char *ref = idle->array.items[i]->string;
		if (sessions->params.is_busy(sessions->params.arg, ref)) {
			sessions_keep(sessions, ref);
			continue;
		}
		struct session *session CLEANUP(cleanup_session_free) =
			sessions_take_idle(sessions, ref);
		if (session)
			session_drop(sessions, session->ref, session->user, "idle");
	}
}

/* Tokens of migrate_receive that nobody came back with. */
static void sessions_expire_migrations(struct sessions *sessions)
{
	struct value *records CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (object_get_all_records(sessions->params.pool, "session", &records, &fault) < 0)
		return;
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		if (record_is_migration(member->value) && !record_names_migration(member->value) &&
			record_age_usec(member->value) > sessions->params.timeout_usec)
			session_drop(sessions, member->name, "", "migration token not used");
	}
}

uint64_t sessions_timeout_usec(const struct sessions *sessions)
{
	return sessions->params.timeout_usec;
}

void sessions_expire(struct sessions *sessions)
{
	sessions_expire_users(sessions);
	sessions_expire_migrations(sessions);
}

int sessions_logout(struct sessions *sessions, const char *ref, struct fault *fault)
{
	struct session *session;

	pthread_mutex_lock(&sessions->lock);
	session = session_take(session_slot(sessions, ref));
	pthread_mutex_unlock(&sessions->lock);
	session_free(session);
	return session_end(sessions, ref, fault);
}

/* --- Login --------------------------------------------------------------------------------------
 */

/* When `key` (a user, or an originator) has all the sessions it may: takes out the one that was
 * idle longest. */
static struct session *sessions_take_surplus(struct sessions *sessions, const char *key, bool user)
{
	struct session **oldest = NULL;
	size_t n = 0;

	SCOPE_LOCK(&sessions->lock);
	for (struct session **p = &sessions->first; *p; p = &(*p)->next) {
		if (strcmp(user ? (*p)->user : (*p)->originator, key) != 0)
			continue;
		n++;
		if (!oldest || (*p)->active_usec < (*oldest)->active_usec)
			oldest = p;
	}
	return n >= SESSIONS_MAX ? session_take(oldest) : NULL;
}

static void sessions_make_room(struct sessions *sessions, const char *key, bool user)
{
	struct session *surplus;

	while ((surplus = sessions_take_surplus(sessions, key, user))) {
		session_drop(sessions, surplus->ref, surplus->user, "too many sessions");
		session_free(surplus);
	}
}

/* *ret_role of a user that is there. */
static int find_role(
	struct sessions *sessions, const char *user, enum user_role *ret_role, struct fault *fault)
{
	char *name CLEANUP_FREE = NULL;
	int r = pool_db_get_user_role(sessions->params.pool, user, &name, fault);

	if (r == 0 && !name)
		r = fault_set(fault, -EACCES, "SESSION_AUTHENTICATION_FAILED", user,
			"The user was removed", NULL);
	return r < 0 ? r : role_parse(name, ret_role, fault);
}

int sessions_login(struct sessions *sessions, const char *user, const char *originator,
	char **ret_ref, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *ref CLEANUP_FREE = NULL;
	enum user_role role = USER_READ_ONLY;
	int r = find_role(sessions, user, &role, fault);

	if (r < 0)
		return r;
	sessions_make_room(sessions, user, true);
	sessions_make_room(sessions, originator, false);
	value_set_string(fields, "this_host", sessions->host_ref);
	value_set(fields, "last_active", value_new_datetime(clock_wall_sec()));
	value_set(fields, "validation_time", value_new_datetime(clock_wall_sec()));
	value_set_bool(fields, "is_local_superuser", role == USER_POOL_ADMIN);
	value_set_string(fields, "auth_user_name", user);
	value_set_string(fields, "originator", originator);
	r = object_create(sessions->params.pool, "session", fields, &ref, fault);
	if (r < 0)
		return r;
	pthread_mutex_lock(&sessions->lock);
	session_insert(sessions, ref, user, originator, role, 0);
	pthread_mutex_unlock(&sessions->lock);
	*ret_ref = TAKE_PTR(ref);
	return 0;
}

/* --- Checking ----------------------------------------------------------------------------------
 */

enum lookup { LOOKUP_NONE, LOOKUP_FRESH, LOOKUP_WRITE, LOOKUP_IDLE };

/* Finds the session and notes that it is in use. */
static enum lookup sessions_touch(
	struct sessions *sessions, const char *ref, struct session_owner *ret_owner)
{
	uint64_t write_usec = MIN(SESSIONS_WRITE_USEC, sessions->params.timeout_usec / 4);
	uint64_t now = clock_now_usec();
	struct session *session;

	SCOPE_LOCK(&sessions->lock);
	session = *session_slot(sessions, ref);
	if (!session)
		return LOOKUP_NONE;
	if (session_is_idle(sessions, session))
		return LOOKUP_IDLE;
	*ret_owner = (struct session_owner){SESSION_USER, xstrdup(session->user), session->role};
	session->active_usec = now;
	if (now - session->written_usec < write_usec)
		return LOOKUP_FRESH;
	session->written_usec = now;
	return LOOKUP_WRITE;
}

static void session_write_active(struct sessions *sessions, const char *ref)
{
	struct value *now CLEANUP_VALUE = value_new_datetime(clock_wall_sec());
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (object_set_field(sessions->params.pool, "session", ref, "last_active", now, &fault) <
		0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("session-not-refreshed", "error=\"%s\"", text);
	}
}

/* Of a user who logged in at the coordinator; on a member. */
static int own_stored(struct sessions *sessions, const struct value *record,
	struct session_owner *ret_owner, struct fault *fault)
{
	const char *user = value_find_string(record, "auth_user_name", "");
	enum user_role role;
	int r = find_role(sessions, user, &role, fault);

	if (r == 0)
		*ret_owner = (struct session_owner){SESSION_USER, xstrdup(user), role};
	return r;
}

/* A session that is not in the list: one of a migration, on a member also of a user, or none. */
static int sessions_check_stored(struct sessions *sessions, const char *ref,
	struct session_owner *ret_owner, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(sessions->params.pool, "session", ref, &record, fault);
	bool of_user = r == 0 && sessions->params.is_member && !record_is_migration(record);

	if (r < 0 || (!record_is_migration(record) &&
			     (!of_user || record_age_usec(record) > sessions->params.timeout_usec)))
		return fault_set(fault, -EACCES, "SESSION_INVALID", ref, NULL);
	if (record_age_usec(record) > MIN(SESSIONS_WRITE_USEC, sessions->params.timeout_usec / 4))
		session_write_active(sessions, ref);
	if (of_user)
		return own_stored(sessions, record, ret_owner, fault);
	*ret_owner = (struct session_owner){SESSION_MIGRATION, NULL, USER_READ_ONLY};
	return 0;
}

int sessions_check(struct sessions *sessions, const char *ref, struct session_owner *ret_owner,
	struct fault *fault)
{
	enum lookup found = sessions_touch(sessions, ref, ret_owner);

	if (found == LOOKUP_IDLE) {
		/* Ended now, unless work of its own keeps it. */
		sessions_expire_users(sessions);
		found = sessions_touch(sessions, ref, ret_owner);
	}
	switch (found) {
	case LOOKUP_WRITE:
		session_write_active(sessions, ref);
		/* fallthrough */
	case LOOKUP_FRESH:
		return 0;
	case LOOKUP_IDLE:
	case LOOKUP_NONE:
		break;
	}
	return sessions_check_stored(sessions, ref, ret_owner, fault);
}

void session_owner_clear(struct session_owner *owner)
{
	free(TAKE_PTR(owner->user));
}

/* --- Users that change ------------------------------------------------------------------------
 */

void sessions_set_role(struct sessions *sessions, const char *user, enum user_role role)
{
	SCOPE_LOCK(&sessions->lock);
	for (struct session *session = sessions->first; session; session = session->next) {
		if (strcmp(session->user, user) == 0)
			session->role = role;
	}
}

static struct session *sessions_take_of(struct sessions *sessions, const char *user)
{
	struct session **p = &sessions->first;

	SCOPE_LOCK(&sessions->lock);
	while (*p && strcmp((*p)->user, user) != 0)
		p = &(*p)->next;
	return session_take(p);
}

void sessions_end_user(struct sessions *sessions, const char *user)
{
	struct session *session;

	while ((session = sessions_take_of(sessions, user))) {
		session_drop(sessions, session->ref, user, "the user was removed");
		session_free(session);
	}
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static void load_session(struct sessions *sessions, const char *ref, const struct value *record)
{
	const char *user = value_find_string(record, "auth_user_name", "");
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	enum user_role role = USER_READ_ONLY;

	if (find_role(sessions, user, &role, &fault) < 0)
		session_drop(sessions, ref, user, "the user was removed");
	else
		session_insert(sessions, ref, user, value_find_string(record, "originator", ""),
			role, record_age_usec(record));
}

static int sessions_load(struct sessions *sessions, struct fault *fault)
{
	struct value *records CLEANUP_VALUE = NULL;

	if (sessions->params.is_member)
		return 0;
	int r = object_get_all_records(sessions->params.pool, "session", &records, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		if (!record_is_migration(member->value))
			load_session(sessions, member->name, member->value);
	}
	return 0;
}

int sessions_new(
	const struct sessions_params *params, struct sessions **ret_sessions, struct fault *fault)
{
	struct sessions *sessions = xcalloc(1, sizeof(*sessions));
	int r;

	sessions->params = *params;
	sessions->host_ref = xstrdup(params->host_ref);
	sessions->params.host_ref = sessions->host_ref;
	pthread_mutex_init(&sessions->lock, NULL);
	r = sessions_load(sessions, fault);
	if (r < 0) {
		sessions_free(sessions);
		return r;
	}
	*ret_sessions = sessions;
	return 0;
}

struct sessions *sessions_free(struct sessions *sessions)
{
	struct session *session;

	if (!sessions)
		return NULL;
	while ((session = session_take(&sessions->first)))
		session_free(session);
	pthread_mutex_destroy(&sessions->lock);
	free(sessions->host_ref);
	free(sessions);
	return NULL;
}
