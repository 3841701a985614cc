/* SPDX-License-Identifier: Apache-2.0 */
/* What a host takes along from one pool to another: its own objects, its repositories with their
 * disks, and the VMs that live on these. Refs and uuids stay, so that what the host keeps in its
 * own database still names the same things. Everything here runs inside a transaction of the
 * caller. */
#ifndef FERRY_AGENT_POOL_BUNDLE_H
#define FERRY_AGENT_POOL_BUNDLE_H

#include "base/fault.h"
#include "base/value.h"
#include "schema/pool_db.h"

/* Member of a record: what object_get_unknown tells of the object, if anything. */
#define BUNDLE_UNKNOWN "unknown_fields"

/* All of a pool of one host: struct of class -> ref -> record, without derived fields. */
int bundle_export_pool(struct pool_db *pool, struct value **ret_bundle, struct fault *fault);

/* The part of a pool that belongs to one of its hosts: the VMs whose disks all lie there. A VM with
 * disks there and elsewhere is refused by name, as is one that runs there. */
int bundle_export_host(
	struct pool_db *pool, const char *host, struct value **ret_bundle, struct fault *fault);
/* Removes those objects, but for networks. */
int bundle_remove(struct pool_db *pool, const struct value *bundle, struct fault *fault);

/* Adds them. map: ref -> ref of what is there already and is not made (may be NULL); a reference to
 * what is in neither becomes null. DB_UNIQUENESS_CONSTRAINT_VIOLATION [class, field, value]. */
int bundle_import(struct pool_db *pool, const struct value *bundle, const struct value *map,
	struct fault *fault);
/* The networks that the pool has already: the one of the coordinator's management interface for
 * that of the host, others with the same name and bridge. */
int bundle_map_networks(struct pool_db *pool, const struct value *bundle, const char *coordinator,
	struct value **ret_map, struct fault *fault);

/* The first host in it; NULL when there is none. */
const char *bundle_host(const struct value *bundle);

#endif
