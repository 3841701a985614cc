/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/registry.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

void registry_init(struct registry *registry)
{
	pthread_mutex_init(&registry->lock, NULL);
	registry->first = NULL;
}

void registry_deinit(struct registry *registry)
{
	while (registry->first) {
		struct migration *m = registry->first;
		registry->first = m->next;
		migration_unref(m);
	}
	pthread_mutex_destroy(&registry->lock);
}

static struct migration *find_locked(struct registry *registry, const char *uuid)
{
	for (struct migration *m = registry->first; m; m = m->next)
		if (strcmp(m->uuid, uuid) == 0)
			return m;
	return NULL;
}

struct migration *registry_find(struct registry *registry, const char *uuid)
{
	SCOPE_LOCK(&registry->lock);
	struct migration *m = find_locked(registry, uuid);
	return m ? migration_ref(m) : NULL;
}

int registry_add(struct registry *registry, struct migration *m)
{
	SCOPE_LOCK(&registry->lock);
	if (find_locked(registry, m->uuid))
		return -EEXIST;
	m->next = registry->first;
	registry->first = migration_ref(m);
	return 0;
}

static bool unlink_locked(struct registry *registry, struct migration *m)
{
	for (struct migration **at = &registry->first; *at; at = &(*at)->next) {
		if (*at == m) {
			*at = m->next;
			return true;
		}
	}
	return false;
}

void registry_remove(struct registry *registry, struct migration *m)
{
	pthread_mutex_lock(&registry->lock);
	bool found = unlink_locked(registry, m);
	pthread_mutex_unlock(&registry->lock);
	if (found)
		migration_unref(m);
}

struct migration **registry_all(struct registry *registry, size_t *ret_n)
{
	size_t n = 0;

	SCOPE_LOCK(&registry->lock);
	for (struct migration *m = registry->first; m; m = m->next)
		n++;
	struct migration **all = xcalloc(n, sizeof(struct migration *));
	n = 0;
	for (struct migration *m = registry->first; m; m = m->next)
		all[n++] = migration_ref(m);
	*ret_n = n;
	return all;
}

static bool is_sending(struct migration *m)
{
	enum migration_state state = migration_state(m);

	return m->role == ROLE_SENDER && state != STATE_ABORTING && !fsm_is_final(state);
}

size_t registry_count_senders(struct registry *registry)
{
	size_t n = 0;

	SCOPE_LOCK(&registry->lock);
	for (struct migration *m = registry->first; m; m = m->next)
		n += is_sending(m);
	return n;
}
