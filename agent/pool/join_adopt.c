/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's side of a join. */
#include "agent/pool/bundle.h"
#include "agent/pool/join.h"
#include "agent/pool/link.h"
#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define SECRET_CHARS 43 /* 256 bits */

int join_invite(struct pool_db *pool, const char *host, char **ret_secret, struct fault *fault)
{
	char *secret CLEANUP_FREE = secret_new(SECRET_CHARS);
	int r;

	if (object_exists(pool, "host", host))
		return fault_set(fault, -EEXIST, "OPERATION_NOT_ALLOWED",
			"pool.join: the host is in this pool already", NULL);
	r = host_departure_record(pool, host, secret, NULL, fault);
	if (r == 0)
		*ret_secret = TAKE_PTR(secret);
	return r;
}

struct adopting {
	const char *coordinator;
	const struct value *objects;
	struct host_link link;
};

/* 1: it has joined already, with the same secret. */
static int use_invitation(struct pool_db *pool, const struct host_link *wanted, struct fault *fault)
{
	struct host_link there CLEANUP_HOST_LINK = {0};
	char *bundle CLEANUP_FREE = NULL;
	int r = host_link_get(pool, wanted->host, &there, fault);

	if (r < 0)
		return r;
	if (r > 0 && link_secret_is(wanted->secret, there.secret))
		return 1;
	r = host_departure_find(pool, wanted->host, wanted->secret, &bundle, fault);
	if (r < 0)
		return r;
	if (r == 0 || bundle)
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"pool.join: the invitation was used or withdrawn; join again", NULL);
	return host_departure_forget(pool, wanted->host, wanted->secret, fault);
}

/* How the coordinator reaches the SR, or else some other host; NULL: none does. */
static int find_pbd(struct pool_db *pool, const char *coordinator, const struct value *refs,
	struct value **ret_pbd, struct fault *fault)
{
	struct value *found CLEANUP_VALUE = NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		r = object_get_record(pool, "PBD", refs->array.items[i]->string, &pbd, fault);
		if (r < 0 ||
			(found && strcmp(value_find_string(pbd, "host", ""), coordinator) != 0))
			continue;
		value_free(found);
		found = TAKE_PTR(pbd);
	}
	if (r < 0)
		return r;
	*ret_pbd = TAKE_PTR(found);
	return 0;
}

/* The way of the others may not be the way of this host: somebody is to look, and plug it. */
static int add_shared_pbds(
	struct pool_db *pool, const char *coordinator, const char *host, struct fault *fault)
{
	struct value *srs CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "SR", &srs, fault);

	for (size_t i = 0; r == 0 && i < srs->record.n_members; i++) {
		const struct value_member *sr = &srs->record.members[i];
		struct value *pbd CLEANUP_VALUE = NULL;
		struct value *fields CLEANUP_VALUE = value_new_struct();
		if (!value_find_bool(sr->value, "shared", false))
			continue;
		r = find_pbd(pool, coordinator, value_find(sr->value, "PBDs"), &pbd, fault);
		if (r < 0 || !pbd)
			continue;
		value_set_string(fields, "host", host);
		value_set_string(fields, "SR", sr->name);
		value_set(fields, "device_config", value_copy(value_find(pbd, "device_config")));
		r = object_create(pool, "PBD", fields, NULL, fault);
	}
	return r;
}

static int adopt(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct adopting *adopting = arg;
	struct value *map CLEANUP_VALUE = NULL;
	int r = use_invitation(pool, &adopting->link, fault);

	if (r != 0)
		return MIN(r, 0);
	r = bundle_map_networks(pool, adopting->objects, adopting->coordinator, &map, fault);
	if (r == 0)
		r = bundle_import(pool, adopting->objects, map, fault);
	if (r == 0)
		r = add_shared_pbds(pool, adopting->coordinator, adopting->link.host, fault);
	return r < 0 ? r : host_link_set(pool, &adopting->link, fault);
}

int join_adopt(struct pool_db *pool, const char *coordinator, const char *request,
	struct host_link *ret_link, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = NULL;
	int r = json_decode(request, strlen(request), NULL, &value, fault);

	if (r < 0)
		return r;
	struct adopting adopting = {
		.coordinator = coordinator,
		.objects = value_find(value, "objects"),
		.link = {.host = xstrdup(value_find_string(value, "host", "")),
			.url = xstrdup(value_find_string(value, "url", "")),
			.fingerprint = xstrdup(value_find_string(value, "fingerprint", "")),
			.secret = xstrdup(value_find_string(value, "secret", ""))},
	};
	struct host_link link CLEANUP_HOST_LINK = adopting.link;
	const char *host = adopting.objects ? bundle_host(adopting.objects) : NULL;
	if (!host || strcmp(host, link.host) != 0 || !*link.url || !*link.fingerprint ||
		!*link.secret)
		return fault_text(fault, -EBADMSG,
			"what the joining host sent lacks its objects, url, fingerprint or secret");
	r = pool_db_transaction(pool, adopt, &adopting, fault);
	if (r < 0)
		return r;
	log_info("HOST_JOINED", "host=%s url=%s", link.host, link.url);
	*ret_link = link;
	link = (struct host_link){0};
	return 0;
}

struct resolving {
	const char *host;
	const char *secret;
	bool joined;
};

static int resolve(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct resolving *resolving = arg;
	struct host_link link CLEANUP_HOST_LINK = {0};
	char *bundle CLEANUP_FREE = NULL;
	int r = host_link_get(pool, resolving->host, &link, fault);

	resolving->joined = r > 0 && link_secret_is(resolving->secret, link.secret);
	if (r < 0 || resolving->joined)
		return MIN(r, 0);
	r = host_departure_find(pool, resolving->host, resolving->secret, &bundle, fault);
	/* It joined, and was ejected before it knew: as a member it learns of that too. */
	resolving->joined = r > 0 && bundle;
	if (r <= 0 || bundle)
		return MIN(r, 0);
	return host_departure_forget(pool, resolving->host, resolving->secret, fault);
}

int join_resolve(struct pool_db *pool, const char *host, const char *secret, bool *ret_joined,
	struct fault *fault)
{
	struct resolving resolving = {host, secret, false};
	int r = pool_db_transaction(pool, resolve, &resolving, fault);

	*ret_joined = resolving.joined;
	return r;
}
