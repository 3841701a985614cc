/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "cli/disks.h"
#include "cli/errors.h"
#include "cli/migration_watch.h"
#include "cli/view.h"

#include <errno.h>

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"VM", "name_label", COLUMN_TEXT, NULL},
	{"ROLE", "role", COLUMN_TEXT, NULL},
	{"STATE", "state", COLUMN_TEXT, NULL},
	{"PROGRESS", "progress", COLUMN_PERCENT, NULL},
	{"RATE", "rate", COLUMN_RATE, NULL},
	{"STARTED", "started", COLUMN_TIME, NULL},
	{"PEER", "peer", COLUMN_TEXT, NULL},
	{"FINISHED", "finished", COLUMN_TIME, NULL},
	{"VM-UUID", "vm_uuid", COLUMN_TEXT, NULL},
	{"TOTAL", "bytes_total", COLUMN_SIZE, NULL},
	{"SENT", "bytes_sent", COLUMN_SIZE, NULL},
	{"TIME-LEFT", "eta", COLUMN_DURATION, NULL},
	{"LIVE", "live", COLUMN_BOOL, NULL},
	{"ROUNDS", "rounds", COLUMN_INT, NULL},
	{"DIRTY", "bytes_dirty", COLUMN_SIZE, NULL},
	{"DIRTY-RATE", "dirty_rate", COLUMN_RATE, NULL},
	{"COPY-RATE", "copy_rate", COLUMN_RATE, NULL},
	{"PREDICTED-PAUSE-MS", "predicted_pause", COLUMN_INT, NULL},
	{"THROTTLE", "throttle", COLUMN_RATE, NULL},
	{"MEMORY", "memory_total", COLUMN_SIZE, NULL},
	{"MEMORY-SENT", "memory_sent", COLUMN_SIZE, NULL},
	{"PAUSE-MS", "pause", COLUMN_MAP, NULL},
	{"ERROR", "error_info", COLUMN_SET, NULL},
	{"CANCELLED-BY", "cancelled_by", COLUMN_TEXT, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

static const struct option show_options[] = {
	{"watch", NULL, NULL, "follow it to its end first, a line a second", false, false},
};

static const struct view view = {.class = "migration", VIEW_COLUMNS(columns), .n_listed = 8};

static int migration_list(struct context *context, struct fault *fault)
{
	return view_list(context, &view, fault);
}

static int migration_show(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;

	if (args_has(context->args, "watch")) {
		int r = view_find(context, &view, &object, fault);
		if (r == 0)
			r = migration_watch(context, &object, fault);
		if (r < 0)
			return r;
		object_clear(&object);
	}
	if (context->json)
		return view_show(context, &view, fault);
	int r = view_find(context, &view, &object, fault);
	if (r == 0)
		r = view_write(context, &view, object.record, fault);
	if (r < 0)
		return r;
	struct value *disks CLEANUP_VALUE = disks_read(value_find(object.record, "disks"), "");
	if (disks->array.n_items)
		buf_append_char(&context->out, '\n');
	disks_write(disks, &context->out);
	return 0;
}

static int migration_cancel(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &view, &object, fault);

	if (r < 0)
		return r;
	return session_call(context->session, NULL, fault, "migration.cancel",
		value_new_string(object.ref), NULL);
}

static int migration_forget(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &view, &object, fault);

	if (r < 0)
		return r;
	return session_call(context->session, NULL, fault, "migration.forget",
		value_new_string(object.ref), NULL);
}

/* "20M", "0" */
static int migration_limit(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	uint64_t bytes = 0;
	const char *text = args_operand(context->args, 1);

	if (parse_size(text, &bytes) < 0 || bytes > INT64_MAX)
		return cli_fail(fault, -EINVAL,
			"%s is no bandwidth: bytes a second, as in 20M; 0 is unlimited", text);
	int r = view_find(context, &view, &object, fault);
	if (r < 0)
		return r;
	return session_call(context->session, NULL, fault, "migration.set_bandwidth",
		value_new_string(object.ref), value_new_int((int64_t)bytes), NULL);
}

const struct command migration_commands[N_MIGRATION_COMMANDS] = {
	{"migration", "list", migration_list, .help = "lists moves, running and ended"},
	{"migration", "show", migration_show, {{"MIGRATION", "migration", false}},
		COMMAND_OPTIONS(show_options), .help = "shows one and its disks"},
	{"migration", "cancel", migration_cancel, {{"MIGRATION", "migration", false}},
		.help = "asks it to stop; the source stays as it was"},
	{"migration", "forget", migration_forget, {{"MIGRATION", "migration", false}},
		.help = "ends an aborted one whose destination is gone for ever"},
	{"migration", "limit", migration_limit,
		{{"MIGRATION", "migration", false}, {"BANDWIDTH", "size", false}},
		.help = "bytes a second from now on; 0: unlimited"},
};
