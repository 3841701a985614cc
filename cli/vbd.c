/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/device.h"
#include "cli/views.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"VM", "VM", COLUMN_NAME, "VM"},
	{"DEVICE", "userdevice", COLUMN_TEXT, NULL},
	{"VDI", "VDI", COLUMN_NAME, "VDI"},
	{"TYPE", "type", COLUMN_TEXT, NULL},
	{"MODE", "mode", COLUMN_TEXT, NULL},
	{"BOOTABLE", "bootable", COLUMN_BOOL, NULL},
	{"ATTACHED", "currently_attached", COLUMN_BOOL, NULL},
};

const struct view vbd_view = {.class = "VBD", VIEW_COLUMNS(columns), .n_listed = 8};

static int vbd_list(struct context *context, struct fault *fault)
{
	return view_list(context, &vbd_view, fault);
}

static int vbd_create(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *ref CLEANUP_VALUE = NULL;
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	struct object vdi CLEANUP_OBJECT = OBJECT_INIT;
	int r = context_session(context, fault);

	if (r == 0)
		r = object_find(context->session, "VM", args_value(args, "vm", ""), &vm, fault);
	if (r == 0)
		r = object_find(context->session, "VDI", args_value(args, "vdi", ""), &vdi, fault);
	if (r < 0)
		return r;
	const struct device_disk disk = {
		.vm = vm.ref,
		.vdi = vdi.ref,
		.place = args_value(args, "device", NULL),
		.mode = args_value(args, "mode", "RW"),
		.bootable = args_has(args, "bootable"),
	};
	r = device_attach_disk(context->session, &disk, &ref, fault);
	return r < 0 ? r : context_put_created(context, "VBD", ref, fault);
}

static int vbd_destroy(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &vbd_view, &object, fault);

	if (r < 0)
		return r;
	return session_call(
		context->session, NULL, fault, "VBD.destroy", value_new_string(object.ref), NULL);
}

static const struct option create_options[] = {
	{"vm", "VM", "VM", "the virtual machine", true, false},
	{"vdi", "VDI", "VDI", "the disk", true, false},
	{"device", "NUMBER", NULL, "its place (the first that is free)", false, false},
	{"mode", "RO|RW", "RO|RW", "whether the VM may write (RW)", false, false},
	{"bootable", NULL, NULL, "the VM may start from it", false, false},
};

const struct command vbd_commands[N_VBD_COMMANDS] = {
	{"vbd", "list", vbd_list, .help = "lists which disk is in which virtual machine"},
	{"vbd", "create", vbd_create, {{0}}, COMMAND_OPTIONS(create_options),
		"puts a disk into a virtual machine and prints the VBD's uuid"},
	{"vbd", "destroy", vbd_destroy, {{"VBD", "VBD", false}},
		.help = "takes a disk out of a virtual machine; the disk stays"},
};
