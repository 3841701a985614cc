/* SPDX-License-Identifier: Apache-2.0 */
/* The migrations that this host is in the middle of, by uuid. Thread-safe. */
#ifndef FERRY_AGENT_MIGRATE_REGISTRY_H
#define FERRY_AGENT_MIGRATE_REGISTRY_H

#include "agent/migrate/migration.h"

struct registry {
	pthread_mutex_t lock;
	struct migration *first; /* each holds one reference */
};

void registry_init(struct registry *registry);
/* Drops all references. */
void registry_deinit(struct registry *registry);

/* A new reference, or NULL. */
struct migration *registry_find(struct registry *registry, const char *uuid);
/* Keeps a reference of its own; -EEXIST when the uuid is there. */
int registry_add(struct registry *registry, struct migration *migration);
void registry_remove(struct registry *registry, struct migration *migration);
/* References of all, in an array that the caller frees. */
struct migration **registry_all(struct registry *registry, size_t *ret_n);
/* Senders that have not ended; one that aborts only tells its peer so. */
size_t registry_count_senders(struct registry *registry);

#endif
