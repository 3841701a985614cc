/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/locals.h"

#include "agent/pool/replica.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"
#include "schema/pool_db.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define N_LOCALS  16
#define IDLE_USEC (600 * USEC_PER_SEC)

struct local {
	char *ref; /* NULL: none */
	char *user;
	enum user_role role;
	uint64_t active_usec;
};

struct locals {
	char *copy; /* of the pool's database */
	pthread_mutex_t lock;
	struct local entries[N_LOCALS];
};

struct locals *locals_new(const char *state_dir)
{
	struct locals *locals = xcalloc(1, sizeof(*locals));

	locals->copy = replica_path(state_dir);
	pthread_mutex_init(&locals->lock, NULL);
	return locals;
}

static void drop(struct local *local)
{
	free(local->ref);
	free(local->user);
	*local = (struct local){0};
}

struct locals *locals_free(struct locals *locals)
{
	if (!locals)
		return NULL;
	for (size_t i = 0; i < N_LOCALS; i++)
		drop(&locals->entries[i]);
	pthread_mutex_destroy(&locals->lock);
	free(locals->copy);
	free(locals);
	return NULL;
}

int locals_find_hash(void *arg, const char *user, char **ret_hash, struct fault *fault)
{
	struct locals *locals = arg;
	char *role CLEANUP_FREE = NULL;

	return pool_copy_find_user(locals->copy, user, ret_hash, &role, fault);
}

/* With the lock held; NULL: none. */
static struct local *find(struct locals *locals, const char *ref)
{
	for (size_t i = 0; i < N_LOCALS; i++) {
		struct local *local = &locals->entries[i];
		if (local->ref && clock_now_usec() - local->active_usec > IDLE_USEC)
			drop(local);
		if (local->ref && strcmp(local->ref, ref) == 0)
			return local;
	}
	return NULL;
}

int locals_login(struct locals *locals, const char *user, char **ret_ref, struct fault *fault)
{
	char *hash CLEANUP_FREE = NULL;
	char *name CLEANUP_FREE = NULL;
	enum user_role role;
	int r = pool_copy_find_user(locals->copy, user, &hash, &name, fault);

	if (r == 0 && !name)
		r = fault_set(fault, -EACCES, "SESSION_AUTHENTICATION_FAILED", user,
			"The user was removed", NULL);
	if (r == 0)
		r = role_parse(name, &role, fault);
	if (r < 0)
		return r;
	SCOPE_LOCK(&locals->lock);
	struct local *place = &locals->entries[0];
	for (size_t i = 1; i < N_LOCALS; i++)
		if (locals->entries[i].active_usec < place->active_usec)
			place = &locals->entries[i];
	drop(place);
	*place = (struct local){ref_new(), xstrdup(user), role, clock_now_usec()};
	*ret_ref = xstrdup(place->ref);
	return 0;
}

int locals_check(struct locals *locals, const char *ref, struct session_owner *ret_owner,
	struct fault *fault)
{
	SCOPE_LOCK(&locals->lock);
	struct local *local = find(locals, ref);

	if (!local)
		return fault_set(fault, -EACCES, "SESSION_INVALID", ref, NULL);
	local->active_usec = clock_now_usec();
	*ret_owner = (struct session_owner){SESSION_USER, xstrdup(local->user), local->role};
	return 0;
}

void locals_logout(struct locals *locals, const char *ref)
{
	SCOPE_LOCK(&locals->lock);
	struct local *local = find(locals, ref);

	if (local)
		drop(local);
}
