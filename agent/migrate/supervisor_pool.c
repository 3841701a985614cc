/* SPDX-License-Identifier: Apache-2.0 */
/* VM.pool_migrate: a migration whose token this host makes itself, as it has the database that the
 * destination looks into. */
#include "agent/migrate/rehome.h"
#include "agent/migrate/supervisor_internal.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"

#include <errno.h>

/* XenAPI's option: the network of the transfer, which the host must be on. */
#define OPTION_NETWORK "network"

static int check_network(struct supervisor *supervisor, const char *host,
	const struct value *options, struct fault *fault)
{
	const char *network = value_find_string(options, OPTION_NETWORK, NULL);

	return network ? supervisor_check_network(supervisor, host, network, fault) : 0;
}

static int make_token(struct supervisor *supervisor, const char *caller_session, const char *host,
	struct value **ret_token, struct fault *fault)
{
	struct pool_db *pool = supervisor->params->storage->pool;
	struct host_link link CLEANUP_HOST_LINK = {0};
	char *address CLEANUP_FREE = NULL;
	int r = host_link_get(pool, host, &link, fault);

	if (r == 0)
		r = fault_text(fault, -ENOENT,
			"this pool does not know how host %s is reached: restart the agent there",
			host);
	if (r > 0)
		r = object_get_string(pool, "host", host, "address", &address, fault);
	if (r < 0)
		return r;
	const struct supervisor_address to = {.host = host,
		.url = link.url,
		.fingerprint = link.fingerprint,
		.data_address = address};
	return supervisor_make_token(supervisor, caller_session, &to, ret_token, fault);
}

int supervisor_pool_migrate(struct supervisor *supervisor, const char *vm, const char *host,
	const struct value *options, const char *caller_session, const char *task,
	struct cancel *cancel, struct fault *fault)
{
	const struct storage *storage = supervisor->params->storage;
	struct value *vdi_map CLEANUP_VALUE = NULL;
	struct value *vif_map CLEANUP_VALUE = value_new_struct();
	struct value *token CLEANUP_VALUE = NULL;
	char *same_vm CLEANUP_FREE = NULL;
	bool begun = false;
	int r = vm_check_operation(storage->pool, vm, "pool_migrate", fault);

	if (r == 0)
		r = rehome_check_host(storage, host, fault);
	if (r == 0)
		r = check_network(supervisor, host, options, fault);
	if (r == 0)
		r = rehome_choose_srs(storage, vm, host, options, &vdi_map, fault);
	if (r == 0)
		r = make_token(supervisor, caller_session, host, &token, fault);
	if (r < 0)
		return r;
	const struct migrate_request request = {.operation = "pool_migrate",
		.vm = vm,
		.dest = token,
		.vdi_map = vdi_map,
		.vif_map = vif_map,
		.options = options};
	/* A token that is of no use is not left behind. */
	r = supervisor_send(supervisor, &request, task, cancel, &same_vm, &begun, fault);
	if (!begun)
		object_destroy(
			storage->pool, "session", value_find_string(token, "session_id", ""), NULL);
	return r;
}
