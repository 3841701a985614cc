/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/views.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"ADDRESS", "address", COLUMN_TEXT, NULL},
	{"ENABLED", "enabled", COLUMN_BOOL, NULL},
	{"LIVE", "metrics", COLUMN_BOOL_AT, "host_metrics.live"},
	{"VMS", "resident_VMs", COLUMN_COUNT, NULL},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
	{"HOSTNAME", "hostname", COLUMN_TEXT, NULL},
	{"SOFTWARE", "software_version", COLUMN_MAP, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

const struct view host_view = {.class = "host", VIEW_COLUMNS(columns), .n_listed = 6};

static int host_list(struct context *context, struct fault *fault)
{
	return view_list(context, &host_view, fault);
}

static int host_show(struct context *context, struct fault *fault)
{
	return view_show(context, &host_view, fault);
}

const struct command host_commands[N_HOST_COMMANDS] = {
	{"host", "list", host_list, .help = "lists the hosts of the pool"},
	{"host", "show", host_show, {{"HOST", "host", false}}, .help = "shows one host"},
};
