/* SPDX-License-Identifier: Apache-2.0 */
/* Class network: without a bridge it is isolated. */
#include "agent/api/context.h"
#include "agent/api/record.h"
#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>

#define MTU_DEFAULT 1500

static int network_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct pool_db *pool = api_of(call)->pool;
	struct value *fields CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;
	int64_t mtu;
	int r = record_take(pool, "network", args[0], &fields, fault);

	if (r == 0)
		r = record_require("network", fields, "name_label", fault);
	if (r < 0)
		return r;
	mtu = value_find_int(fields, "MTU", 0);
	if (mtu == 0)
		mtu = MTU_DEFAULT;
	/* RFC 791: every link carries 68 bytes. */
	if (mtu < 68 || mtu > 65535) {
		char *text CLEANUP_FREE = xasprintf("%" PRId64, mtu);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "MTU", text, NULL);
	}
	value_set_int(fields, "MTU", mtu);
	r = object_create(pool, "network", fields, &ref, fault);
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

/* code [ref ...] when objects of the class are on the network. */
static int check_unused(struct pool_db *pool, const char *class, const char *network,
	const char *code, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(pool, class, "network", network, &refs, fault);

	if (r < 0 || refs->array.n_items == 0)
		return r;
	fault_set(fault, -EBUSY, code, NULL);
	for (size_t i = 0; i < refs->array.n_items; i++)
		fault_add_param(fault, refs->array.items[i]->string);
	return -EBUSY;
}

static int network_unmake(struct pool_db *pool, void *arg, struct fault *fault)
{
	const char *network = arg;
	int r = check_unused(pool, "VIF", network, "NETWORK_CONTAINS_VIF", fault);

	if (r == 0)
		r = check_unused(pool, "PIF", network, "NETWORK_CONTAINS_PIF", fault);
	return r < 0 ? r : object_destroy(pool, "network", network, fault);
}

static int network_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *network CLEANUP_FREE = xstrdup(arg_text(args, 0));

	(void)ret_result;
	return pool_db_transaction(api_of(call)->pool, network_unmake, network, fault);
}

static const struct param create_params[] = {{"args", PARAM_STRUCT, "network record"}};
static const struct param self_params[] = {{"self", PARAM_STRING, "network ref"}};

static const struct method rows[] = {
	{
		.name = "network.create",
		.role = USER_VM_ADMIN,
		.handle = network_create,
		.flags = METHOD_ASYNC,
		PARAMS(create_params),
		.result = "network ref",
		.doc = "Makes a network; name_label is needed.",
	},
	{
		.name = "network.destroy",
		.role = USER_VM_ADMIN,
		.handle = network_destroy,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes a network that no VIF and no PIF is on.",
	},
};

const struct method_table network_methods = {rows, ARRAY_SIZE(rows)};
