/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/leave.h"

#include "agent/pool/bundle.h"
#include "agent/pool/pool_file.h"
#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Beside the classes of the bundle. */
#define USERS_KEY   "users"
#define DRIVERS_KEY "SM"

/* --- On the coordinator ------------------------------------------------------------------------
 */

/* An SR that other hosts reach too stays, but a disk of it may not be in use there. */
static int check_disks_idle(struct pool_db *pool, const struct value *bundle, struct fault *fault)
{
	const struct value *vdis = value_find(bundle, "VDI");

	(void)pool;
	for (size_t i = 0; vdis && i < vdis->record.n_members; i++) {
		const struct value_member *vdi = &vdis->record.members[i];
		const struct value *operations = value_find(vdi->value, "current_operations");
		if (operations && operations->record.n_members > 0)
			return fault_set(fault, -EBUSY, "VDI_IN_USE", vdi->name, "eject", NULL);
	}
	return 0;
}

/* Those of SRs that stay are of no use to the host that leaves. */
static struct value *without_shared_pbds(const struct value *bundle)
{
	struct value *left = value_copy(bundle);
	const struct value *pbds = value_find(bundle, "PBD");

	for (size_t i = 0; pbds && i < pbds->record.n_members; i++) {
		const struct value_member *pbd = &pbds->record.members[i];
		const char *sr = value_find_string(pbd->value, "SR", "");
		if (!value_find(value_find(bundle, "SR"), sr))
			value_unset(value_find(left, "PBD"), pbd->name);
	}
	return left;
}

/* What the new pool needs besides: who may log in, and the kinds of repositories. */
static int add_common(struct pool_db *pool, struct value *package, struct fault *fault)
{
	struct value *users = NULL;
	struct value *drivers = NULL;
	int r = pool_db_list_users(pool, &users, fault);

	if (r == 0)
		value_set(package, USERS_KEY, users);
	if (r == 0)
		r = object_get_all_records(pool, "SM", &drivers, fault);
	if (r == 0)
		value_set(package, DRIVERS_KEY, drivers);
	return r;
}

struct ejecting {
	const char *coordinator;
	const char *host;
};

static int pack(struct pool_db *pool, const char *host, struct value **ret_bundle, char **ret_text,
	struct fault *fault)
{
	struct value *package CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct value *bundle CLEANUP_VALUE = NULL;
	int r = bundle_export_host(pool, host, &bundle, fault);

	if (r == 0)
		r = check_disks_idle(pool, bundle, fault);
	if (r == 0)
		r = add_common(pool, package, fault);
	if (r < 0)
		return r;
	value_set(package, "objects", without_shared_pbds(bundle));
	json_encode(package, &text);
	*ret_text = buf_take_string(&text);
	*ret_bundle = TAKE_PTR(bundle);
	return 0;
}

static int eject(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct ejecting *ejecting = arg;
	struct host_link link CLEANUP_HOST_LINK = {0};
	struct value *bundle CLEANUP_VALUE = NULL;
	char *text CLEANUP_FREE = NULL;
	int r = host_link_get(pool, ejecting->host, &link, fault);

	if (r < 0)
		return r;
	if (r == 0)
		return fault_text(
			fault, -ENOENT, "nobody knows how to reach host %s", ejecting->host);
	r = pack(pool, ejecting->host, &bundle, &text, fault);
	if (r == 0)
		r = host_departure_record(pool, link.host, link.secret, text, fault);
	if (r == 0)
		r = host_link_remove(pool, link.host, fault);
	return r < 0 ? r : bundle_remove(pool, bundle, fault);
}

int leave_eject(
	struct pool_db *pool, const char *coordinator, const char *host, struct fault *fault)
{
	struct ejecting ejecting = {coordinator, host};
	int r = object_check(pool, "host", host, fault);

	if (r < 0)
		return r;
	if (strcmp(host, coordinator) == 0)
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"pool.eject: the host is the pool's coordinator", NULL);
	r = pool_db_transaction(pool, eject, &ejecting, fault);
	if (r == 0)
		log_info("HOST_LEFT", "host=%s", host);
	return r;
}

/* --- On the host -------------------------------------------------------------------------------
 */

struct making {
	const struct value *package;
	const char *pool_name;
};

static int add_users(struct pool_db *pool, const struct value *users, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; users && r == 0 && i < users->record.n_members; i++) {
		const char *name = users->record.members[i].name;
		const struct value *user = users->record.members[i].value;
		r = pool_db_set_user(
			pool, name, value_find_string(user, "password_hash", ""), fault);
		if (r == 0)
			r = pool_db_set_user_role(
				pool, name, value_find_string(user, "role", ""), fault);
	}
	return r;
}

static int add_pool(
	struct pool_db *pool, const struct value *objects, const char *name, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	const struct value *srs = value_find(objects, "SR");

	value_set_string(fields, "name_label", name);
	value_set_string(fields, "master", bundle_host(objects));
	if (srs && srs->record.n_members > 0)
		value_set_string(fields, "default_SR", srs->record.members[0].name);
	return object_create(pool, "pool", fields, NULL, fault);
}

static int fill(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct making *making = arg;
	const struct value *objects = value_find(making->package, "objects");
	const struct value *drivers = value_find(making->package, DRIVERS_KEY);
	struct value *wrapped CLEANUP_VALUE = value_new_struct();

	if (!objects || !bundle_host(objects) || !drivers)
		return fault_text(fault, -EBADMSG, "the pool sent no objects to take along");
	value_set(wrapped, "SM", value_copy(drivers));
	int r = bundle_import(pool, objects, NULL, fault);
	if (r == 0)
		r = bundle_import(pool, wrapped, NULL, fault);
	if (r == 0)
		r = add_users(pool, value_find(making->package, USERS_KEY), fault);
	return r < 0 ? r : add_pool(pool, objects, making->pool_name, fault);
}

int leave_make_pool(
	const char *state_dir, const char *bundle, const char *pool_name, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", state_dir);
	char *fresh CLEANUP_FREE = xasprintf("%s/pool.db.new", state_dir);
	struct value *package CLEANUP_VALUE = NULL;
	struct pool_db *pool = NULL;
	int r = json_decode(bundle, strlen(bundle), NULL, &package, fault);

	if (r < 0)
		return r;
	struct making making = {package, pool_name};
	pool_file_remove(fresh);
	r = pool_db_open(fresh, &pool, fault);
	if (r < 0)
		return r;
	r = pool_db_transaction(pool, fill, &making, fault);
	pool_db_close(pool); /* its journal goes into the file */
	if (r < 0)
		return r;
	return pool_file_put(fresh, path, fault);
}
