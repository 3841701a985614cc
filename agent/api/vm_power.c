/* SPDX-License-Identifier: Apache-2.0 */
/* Class VM: the life of its guest. */
#include "agent/api/context.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* The row's data is the operation's name. */
static int run(struct call *call, const char *vm, bool start_paused, struct fault *fault)
{
	struct api *api = api_of(call);
	const struct guests_request request = {
		.vm = vm,
		.operation = call_method(call)->data,
		.key = call_task(call),
		.start_paused = start_paused,
		.cancel = call_cancel(call),
	};

	int r = object_check(api->pool, "VM", vm, fault);

	return r < 0 ? r : guests_do(api->guests, &request, fault);
}

static int vm_operate(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return run(call, arg_text(args, 0), false, fault);
}

/* force means "though the host says it has too little memory, or the like" to XenAPI; there is
 * nothing here that may be passed over. */
static int vm_start(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return run(call, arg_text(args, 0), args[1]->boolean, fault);
}

static int vm_start_on(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const char *host = arg_text(args, 1);

	(void)ret_result;
	int r = object_check(api_of(call)->pool, "VM", arg_text(args, 0), fault);
	if (r < 0)
		return r;
	if (strcmp(host, api_of(call)->host_ref) != 0)
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "host", host, NULL);
	return run(call, arg_text(args, 0), args[2]->boolean, fault);
}

static const struct param vm_params[] = {{"vm", PARAM_STRING, "VM ref"}};
static const struct param start_params[] = {
	{"vm", PARAM_STRING, "VM ref"},
	{"start_paused", PARAM_BOOL, NULL},
	{"force", PARAM_BOOL, NULL},
};
static const struct param start_on_params[] = {
	{"vm", PARAM_STRING, "VM ref"},
	{"host", PARAM_STRING, "host ref"},
	{"start_paused", PARAM_BOOL, NULL},
	{"force", PARAM_BOOL, NULL},
};

/* What the rows of operations without further arguments share. */
#define OPERATION(operation, least)                                                                \
	.name = "VM." operation, .role = (least), .handle = vm_operate,                            \
	.flags = METHOD_ASYNC | METHOD_TASK, PARAMS(vm_params), .result = "void",                  \
	.data = (operation)

static const struct method rows[] = {
	{
		.name = "VM.start",
		.role = USER_VM_OPERATOR,
		.handle = vm_start,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(start_params),
		.result = "void",
		.doc = "Starts a halted VM, paused if that is wanted; force changes nothing.",
		.data = "start",
	},
	{
		.name = "VM.start_on",
		.role = USER_VM_POWER_ADMIN,
		.handle = vm_start_on,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(start_on_params),
		.result = "void",
		.doc = "The same on the host that is named.",
		.data = "start_on",
	},
	{OPERATION("pause", USER_VM_POWER_ADMIN), .doc = "Stops the guest's processors."},
	{OPERATION("unpause", USER_VM_POWER_ADMIN), .doc = "Lets them go on."},
	{OPERATION("clean_shutdown", USER_VM_OPERATOR),
		.doc = "Presses the power button and waits for the guest to shut down."},
	{OPERATION("hard_shutdown", USER_VM_OPERATOR),
		.doc = "Ends the guest at once, as a power cut would."},
	{OPERATION("clean_reboot", USER_VM_OPERATOR), .doc = "clean_shutdown, then start."},
	{OPERATION("hard_reboot", USER_VM_OPERATOR), .doc = "Presses the reset button."},
};

const struct method_table vm_power_methods = {rows, ARRAY_SIZE(rows)};
