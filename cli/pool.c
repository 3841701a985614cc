/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/view.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"COORDINATOR", "master", COLUMN_NAME, "host"},
	{"DEFAULT-SR", "default_SR", COLUMN_NAME, "SR"},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
	{"TAGS", "tags", COLUMN_SET, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

static const struct view view = {.class = "pool", VIEW_COLUMNS(columns), .n_listed = 4};

static int pool_list(struct context *context, struct fault *fault)
{
	return view_list(context, &view, fault);
}

static int pool_show(struct context *context, struct fault *fault)
{
	return view_show(context, &view, fault);
}

const struct command pool_commands[N_POOL_COMMANDS] = {
	{"pool", "list", pool_list, .help = "lists the pool of the server"},
	{"pool", "show", pool_show, {{"POOL", "pool", false}}, .help = "shows the pool"},
};
