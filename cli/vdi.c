/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "base/parse.h"
#include "cli/copies.h"
#include "cli/errors.h"
#include "cli/file.h"
#include "cli/interrupt.h"
#include "cli/object.h"
#include "cli/record.h"
#include "cli/views.h"
#include "cli/wait.h"

#include <errno.h>

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"SR", "SR", COLUMN_NAME, "SR"},
	{"SIZE", "virtual_size", COLUMN_SIZE, NULL},
	{"ALLOCATED", "physical_utilisation", COLUMN_SIZE, NULL},
	{"VBDS", "VBDs", COLUMN_COUNT, NULL},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
	{"LOCATION", "location", COLUMN_TEXT, NULL},
	{"TYPE", "type", COLUMN_TEXT, NULL},
	{"READ-ONLY", "read_only", COLUMN_BOOL, NULL},
	{"SHARABLE", "sharable", COLUMN_BOOL, NULL},
	{"MISSING", "missing", COLUMN_BOOL, NULL},
	{"OPERATIONS", "current_operations", COLUMN_MAP, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

const struct view vdi_view = {.class = "VDI", VIEW_COLUMNS(columns), .n_listed = 6};

static int vdi_list(struct context *context, struct fault *fault)
{
	return view_list(context, &vdi_view, fault);
}

static int vdi_show(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;

	if (context->json)
		return view_show(context, &vdi_view, fault);
	int r = view_find(context, &vdi_view, &object, fault);
	if (r == 0)
		r = view_write(context, &vdi_view, object.record, fault);
	if (r == 0)
		r = view_write_some(context, &vbd_view, "Attached to",
			value_find(object.record, "VBDs"), fault);
	return r;
}

static int vdi_create(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *record CLEANUP_VALUE = value_new_struct();
	struct value *ref CLEANUP_VALUE = NULL;
	struct object sr CLEANUP_OBJECT = OBJECT_INIT;
	const char *format = args_value(args, "format", NULL);
	uint64_t size;
	int r = args_size(args, "size", 0, &size, fault);

	if (r == 0)
		r = context_session(context, fault);
	if (r == 0)
		r = object_find(context->session, "SR", args_value(args, "sr", ""), &sr, fault);
	if (r < 0)
		return r;
	struct value *sm_config = value_new_struct();
	if (format)
		value_set_string(sm_config, "image-format", format);
	value_set_string(record, "name_label", args_operand(args, 0));
	value_set_string(record, "name_description", args_value(args, "description", ""));
	value_set_string(record, "SR", sr.ref);
	value_set_int(record, "virtual_size", (int64_t)size);
	value_set_string(record, "type", "user");
	value_set_bool(record, "sharable", false);
	value_set_bool(record, "read_only", false);
	value_set(record, "other_config", value_new_struct());
	value_set(record, "xenstore_data", value_new_struct());
	value_set(record, "sm_config", sm_config);
	value_set(record, "tags", value_new_array());
	r = session_call(context->session, &ref, fault, "VDI.create", TAKE_PTR(record), NULL);
	return r < 0 ? r : context_put_created(context, "VDI", ref, fault);
}

static int vdi_destroy(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &vdi_view, &object, fault);

	if (r < 0)
		return r;
	return session_call(
		context->session, NULL, fault, "VDI.destroy", value_new_string(object.ref), NULL);
}

static int vdi_resize(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	const char *text = args_operand(context->args, 1);
	uint64_t size;

	if (parse_size(text, &size) < 0 || size > INT64_MAX)
		return cli_usage(
			fault, "\"%s\" is no size: bytes, as 512, 64K, 300M, 20G or 2T", text);
	int r = view_find(context, &vdi_view, &object, fault);
	if (r < 0)
		return r;
	/* The server refuses this too, but does not know what was meant. */
	int64_t now = record_int(object.record, "virtual_size", 0);
	if ((int64_t)size < now)
		return cli_fail(fault, -EINVAL,
			"the disk is %lld bytes: shrinking it to %s would cut off data",
			(long long)now, text);
	return session_call(context->session, NULL, fault, "VDI.resize",
		value_new_string(object.ref), value_new_int((int64_t)size), NULL);
}

/* Starts the task. */
static int begin_move(struct context *context, struct value **ret_task, struct fault *fault)
{
	struct object vdi CLEANUP_OBJECT = OBJECT_INIT;
	struct object sr CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &vdi_view, &vdi, fault);

	if (r == 0)
		r = object_find(context->session, "SR", args_operand(context->args, 1), &sr, fault);
	if (r < 0)
		return r;
	/* A Ctrl-C must not lose the ref of a task that was started: it counts in the wait. */
	session_set_cancel(context->session, interrupt_second());
	return session_call(context->session, ret_task, fault, "Async.VDI.pool_migrate",
		value_new_string(vdi.ref), value_new_string(sr.ref), value_new_struct(), NULL);
}

static int vdi_migrate(struct context *context, struct fault *fault)
{
	struct value *task CLEANUP_VALUE = NULL;
	struct value *record CLEANUP_VALUE = NULL;
	int r = begin_move(context, &task, fault);

	if (r < 0)
		return r;
	const char *ref = value_string(task, "");
	r = wait_for_task(context, ref, WAIT_CANCELS, &record, fault);
	if (r < 0)
		return r;
	(void)session_call(
		context->session, NULL, NULL, "task.destroy", value_new_string(ref), NULL);
	return wait_outcome(ref, record, fault);
}

static int transfer_of(
	struct context *context, const char *path, struct file *file, struct fault *fault)
{
	struct object vdi CLEANUP_OBJECT = OBJECT_INIT;
	struct value *queries CLEANUP_VALUE = value_new_struct();
	int r = view_find(context, &vdi_view, &vdi, fault);

	if (r < 0)
		return r;
	value_set_string(queries, "vdi", vdi.ref);
	value_set_string(queries, "format", "raw");
	return file_move(context, path, queries, file, NULL, fault);
}

static int vdi_export(struct context *context, struct fault *fault)
{
	struct file file CLEANUP_FILE = FILE_INIT;
	int r = file_create(&file, args_operand(context->args, 1), fault);

	if (r == 0)
		r = transfer_of(context, "/export_raw_vdi", &file, fault);
	return r < 0 ? r : file_keep(&file, fault);
}

static int vdi_import(struct context *context, struct fault *fault)
{
	struct file file CLEANUP_FILE = FILE_INIT;
	int r = file_open(&file, args_operand(context->args, 1), fault);

	return r < 0 ? r : transfer_of(context, "/import_raw_vdi", &file, fault);
}

static const struct option create_options[] = {
	{"sr", "SR", "SR", "where it lies", true, false},
	{"size", "SIZE", NULL, "its size, as 20G", true, false},
	{"format", "FORMAT", NULL, "of its image: raw (the default) or qcow2", false, false},
	{"description", "TEXT", NULL, "description", false, false},
};

const struct command vdi_commands[N_VDI_COMMANDS] = {
	{"vdi", "list", vdi_list, .help = "lists the disks"},
	{"vdi", "show", vdi_show, {{"VDI", "VDI", false}}, .help = "shows one disk and its VMs"},
	{"vdi", "create", vdi_create, {{"NAME", NULL, false}}, COMMAND_OPTIONS(create_options),
		"makes an empty disk and prints its uuid"},
	{"vdi", "destroy", vdi_destroy, {{"VDI", "VDI", false}},
		.help = "destroys a disk and its data"},
	{"vdi", "resize", vdi_resize, {{"VDI", "VDI", false}, {"SIZE", NULL, false}},
		.help = "makes a disk larger"},
	{"vdi", "migrate", vdi_migrate, {{"VDI", "VDI", false}, {"SR", "SR", false}},
		.help = "moves a disk to another SR of its host, also while its VM runs"},
	{"vdi", "clone", vdi_clone, {{"VDI", "VDI", false}},
		.help = "copies a disk that no guest has and prints the new one's uuid"},
	{"vdi", "copy", vdi_copy, {{"VDI", "VDI", false}, {"SR", "SR", false}},
		.help = "the same, into another SR of its host"},
	{"vdi", "snapshot", vdi_snapshot, {{"VDI", "VDI", false}},
		.help = "the same as clone, but read-only and known as the disk's snapshot"},
	{"vdi", "export", vdi_export, {{"VDI", "VDI", false}, {"FILE", "file", false}},
		.help = "writes the content of a disk that no guest has to a file (-: "
			"standard output)"},
	{"vdi", "import", vdi_import, {{"VDI", "VDI", false}, {"FILE", "file", false}},
		.help = "writes a file (-: standard input) to a disk that no guest has"},
};
