/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "cli/view.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"BRIDGE", "bridge", COLUMN_TEXT, NULL},
	{"VIFS", "VIFs", COLUMN_COUNT, NULL},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
};

static const struct view view = {.class = "network", VIEW_COLUMNS(columns), .n_listed = 5};

static int network_list(struct context *context, struct fault *fault)
{
	return view_list(context, &view, fault);
}

static int network_create(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *record CLEANUP_VALUE = value_new_struct();
	struct value *ref CLEANUP_VALUE = NULL;
	int r = context_session(context, fault);

	if (r < 0)
		return r;
	value_set_string(record, "name_label", args_operand(args, 0));
	value_set_string(record, "name_description", args_value(args, "description", ""));
	value_set_string(record, "bridge", args_value(args, "bridge", ""));
	value_set(record, "other_config", value_new_struct());
	value_set(record, "tags", value_new_array());
	r = session_call(context->session, &ref, fault, "network.create", TAKE_PTR(record), NULL);
	return r < 0 ? r : context_put_created(context, "network", ref, fault);
}

static const struct option create_options[] = {
	{"bridge", "NAME", NULL, "bridge of the host; without one the network is isolated", false,
		false},
	{"description", "TEXT", NULL, "description", false, false},
};

const struct command network_commands[N_NETWORK_COMMANDS] = {
	{"network", "list", network_list, .help = "lists the networks"},
	{"network", "create", network_create, {{"NAME", NULL, false}},
		COMMAND_OPTIONS(create_options), "makes a network and prints its uuid"},
};
