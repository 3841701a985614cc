/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "cli/disks.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/migration_watch.h"
#include "cli/prompt.h"
#include "cli/view.h"

#include <errno.h>
#include <string.h>

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
	{"COMPARED", "bytes_compared", COLUMN_SIZE, NULL},
	{"SAVED", "bytes_saved", COLUMN_SIZE, NULL},
	{"TIME-LEFT", "eta", COLUMN_DURATION, NULL},
	{"QUEUE-PLACE", "queue_place", COLUMN_INT, NULL},
	{"LIVE", "live", COLUMN_BOOL, NULL},
	{"ROUNDS", "rounds", COLUMN_INT, NULL},
	{"DIRTY", "bytes_dirty", COLUMN_SIZE, NULL},
	{"DIRTY-RATE", "dirty_rate", COLUMN_RATE, NULL},
	{"COPY-RATE", "copy_rate", COLUMN_RATE, NULL},
	{"PREDICTED-PAUSE-MS", "predicted_pause", COLUMN_INT, NULL},
	{"THROTTLE", "throttle", COLUMN_RATE, NULL},
	{"MEMORY", "memory_total", COLUMN_SIZE, NULL},
	{"MEMORY-SENT", "memory_sent", COLUMN_SIZE, NULL},
	{"UNREADABLE", "bytes_unreadable", COLUMN_SIZE, NULL},
	{"PAUSE-MS", "pause", COLUMN_MAP, NULL},
	{"ERROR", "error_info", COLUMN_SET, NULL},
	{"OUTCOME", "outcome", COLUMN_TEXT, NULL},
	{"CANCELLED-BY", "cancelled_by", COLUMN_TEXT, NULL},
	{"CANCELLED-IN", "cancelled_in", COLUMN_TEXT, NULL},
	{"CANCELLED-AT", "cancelled_at", COLUMN_TIME, NULL},
	{"HOST", "host", COLUMN_NAME, "host"},
	{"PEER-SILENT-SINCE", "peer_silent_since", COLUMN_TIME, NULL},
	{"IN-DOUBT", "in_doubt", COLUMN_BOOL, NULL},
	{"DOUBT", "doubt", COLUMN_TEXT, NULL},
	{"EXPOSED", "exposed", COLUMN_TEXT, NULL},
	{"RESOLVED", "resolved", COLUMN_MAP, NULL},
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
	struct value *unreadable CLEANUP_VALUE =
		disks_read(value_find(object.record, "unreadable"), "");
	disks_write_unreadable(unreadable, &context->out);
	return 0;
}

static int call_on(struct context *context, const char *method, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &view, &object, fault);

	if (r < 0)
		return r;
	return session_call(
		context->session, NULL, fault, method, value_new_string(object.ref), NULL);
}

static int migration_cancel(struct context *context, struct fault *fault)
{
	return call_on(context, "migration.cancel", fault);
}

static int migration_forget(struct context *context, struct fault *fault)
{
	return call_on(context, "migration.forget", fault);
}

static int migration_resume(struct context *context, struct fault *fault)
{
	return call_on(context, "migration.resume", fault);
}

/* --- In doubt -----------------------------------------------------------------------------------
 */

#define CHECKED_OPTION "yes-i-have-checked-the-destination"

static const struct option resolve_options[] = {
	{"assume", "DECISION", "committed|aborted", "what the destination decided", true, false},
	{CHECKED_OPTION, NULL, NULL, "do not ask; the danger is known", false, false},
};

/* Whoever types the uuid has read what is above it. */
static int ask(const struct object *object, bool committed, struct fault *fault)
{
	const char *uuid = value_find_string(object->record, "uuid", "");
	const char *danger =
		committed
			? "You say that the destination has COMMITTED this migration.\n"
			  "The VM is removed here; its disks are kept, without a VM.\n"
			  "If that is wrong, the VM runs nowhere.\n"
			  "Check first, at the destination: `ferry migration show` says COMMITTED "
			  "or DONE,\nand the VM is there.\n"
			: "You say that the destination has NOT committed this migration, and "
			  "never will.\n"
			  "The VM goes on here.\n"
			  "If that is wrong, the VM RUNS TWICE, on disks that differ from now on: "
			  "data is lost.\n"
			  "Check first, at the destination: `ferry migration cancel` there is "
			  "accepted, or its\nhost is lost and will never run again with its "
			  "state_dir.\n";
	char *question CLEANUP_FREE =
		xasprintf("%sType the migration's uuid (%s) to go on: ", danger, uuid);
	char *answer CLEANUP_FREE = NULL;
	int r = prompt_ask(question, PROMPT_SHOWN, interrupt_first(), &answer, fault);

	if (r == -ENXIO)
		return cli_fail(fault, r,
			"it is dangerous to be wrong about this, and there is no terminal to ask "
			"on: look at the destination, and say --" CHECKED_OPTION);
	if (r < 0)
		return r;
	return strcmp(answer, uuid) == 0
		       ? 0
		       : cli_fail(fault, -ECANCELED, "that is not %s: nothing was done", uuid);
}

static int migration_resolve(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	const char *assume = args_value(context->args, "assume", "");
	int r = view_find(context, &view, &object, fault);

	if (r == 0 && !args_has(context->args, CHECKED_OPTION))
		r = ask(&object, strcmp(assume, "committed") == 0, fault);
	if (r < 0)
		return r;
	return session_call(context->session, NULL, fault, "migration.resolve",
		value_new_string(object.ref), value_new_string(assume), value_new_bool(true), NULL);
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
	{"migration", "resolve", migration_resolve, {{"MIGRATION", "migration", false}},
		COMMAND_OPTIONS(resolve_options),
		.help = "says what was decided about one in doubt; dangerous"},
	{"migration", "resume", migration_resume, {{"MIGRATION", "migration", false}},
		.help = "makes one that waits to try again try now"},
	{"migration", "limit", migration_limit,
		{{"MIGRATION", "migration", false}, {"BANDWIDTH", "size", false}},
		.help = "bytes a second from now on; 0: unlimited"},
};
