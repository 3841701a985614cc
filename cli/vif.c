/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "cli/device.h"
#include "cli/views.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"VM", "VM", COLUMN_NAME, "VM"},
	{"DEVICE", "device", COLUMN_TEXT, NULL},
	{"MAC", "MAC", COLUMN_TEXT, NULL},
	{"NETWORK", "network", COLUMN_NAME, "network"},
	{"ATTACHED", "currently_attached", COLUMN_BOOL, NULL},
};

const struct view vif_view = {.class = "VIF", VIEW_COLUMNS(columns), .n_listed = 6};

static int vif_list(struct context *context, struct fault *fault)
{
	return view_list(context, &vif_view, fault);
}

static int vif_create(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *ref CLEANUP_VALUE = NULL;
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	struct object network CLEANUP_OBJECT = OBJECT_INIT;
	int r = context_session(context, fault);

	if (r == 0)
		r = object_find(context->session, "VM", args_value(args, "vm", ""), &vm, fault);
	if (r == 0)
		r = object_find(context->session, "network", args_value(args, "network", ""),
			&network, fault);
	if (r < 0)
		return r;
	const struct device_card card = {
		.vm = vm.ref,
		.network = network.ref,
		.place = args_value(args, "device", NULL),
		.mac = args_value(args, "mac", ""),
	};
	r = device_attach_card(context->session, &card, &ref, fault);
	return r < 0 ? r : context_put_created(context, "VIF", ref, fault);
}

static int vif_destroy(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &vif_view, &object, fault);

	if (r < 0)
		return r;
	return session_call(
		context->session, NULL, fault, "VIF.destroy", value_new_string(object.ref), NULL);
}

static const struct option create_options[] = {
	{"vm", "VM", "VM", "the virtual machine", true, false},
	{"network", "NETWORK", "network", "what it is joined to", true, false},
	{"device", "NUMBER", NULL, "its place (the first that is free)", false, false},
	{"mac", "MAC", NULL, "its address (a random one)", false, false},
};

const struct command vif_commands[N_VIF_COMMANDS] = {
	{"vif", "list", vif_list, .help = "lists the network cards"},
	{"vif", "create", vif_create, {{0}}, COMMAND_OPTIONS(create_options),
		"puts a network card into a virtual machine and prints its uuid"},
	{"vif", "destroy", vif_destroy, {{"VIF", "VIF", false}}, .help = "removes a network card"},
};
