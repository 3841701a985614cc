/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "base/uuid.h"
#include "cli/copies.h"
#include "cli/device.h"
#include "cli/errors.h"
#include "cli/metadata.h"
#include "cli/views.h"
#include "cli/vm_migrate.h"
#include "cli/vm_power.h"

#include <string.h>

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"STATE", "power_state", COLUMN_TEXT, NULL},
	{"MEMORY", "memory_static_max", COLUMN_SIZE, NULL},
	{"VCPUS", "VCPUs_max", COLUMN_INT, NULL},
	{"OPERATIONS", "current_operations", COLUMN_MAP, NULL},
	{"HOST", "resident_on", COLUMN_NAME, "host"},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
	{"TEMPLATE", "is_a_template", COLUMN_BOOL, NULL},
	{"TAGS", "tags", COLUMN_SET, NULL},
	{"BLOCKED", "blocked_operations", COLUMN_MAP, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

static bool is_plain(const struct value *record)
{
	return !value_find_bool(record, "is_a_template", false) &&
	       !value_find_bool(record, "is_a_snapshot", false) &&
	       !value_find_bool(record, "is_control_domain", false);
}

static const struct view view = {
	.class = "VM", VIEW_COLUMNS(columns), .n_listed = 6, .is_listed = is_plain};
static const struct view view_all = {.class = "VM", VIEW_COLUMNS(columns), .n_listed = 6};

static int vm_list(struct context *context, struct fault *fault)
{
	return view_list(context, args_has(context->args, "all") ? &view_all : &view, fault);
}

static int vm_show(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;

	if (context->json)
		return view_show(context, &view, fault);
	int r = view_find(context, &view, &object, fault);
	if (r == 0)
		r = view_write(context, &view, object.record, fault);
	if (r == 0)
		r = view_write_some(
			context, &vbd_view, "Disks", value_find(object.record, "VBDs"), fault);
	if (r == 0)
		r = view_write_some(context, &vif_view, "Network cards",
			value_find(object.record, "VIFs"), fault);
	if (r == 0)
		r = view_write_some(context, &view_all, "Snapshots",
			value_find(object.record, "snapshots"), fault);
	return r;
}

/* --- Making one ---------------------------------------------------------------------------------
 */

/* What VM.create of XenAPI wants; the server has defaults for the rest. */
static struct value *make_record(const struct args *args, uint64_t memory, uint64_t vcpus)
{
	static const char *const memory_fields[] = {"memory_static_max", "memory_dynamic_max",
		"memory_dynamic_min", "memory_static_min"};
	static const char *const empty_strings[] = {"PV_bootloader", "PV_kernel", "PV_ramdisk",
		"PV_args", "PV_bootloader_args", "PV_legacy_args", "PCI_bus", "recommendations"};
	static const char *const empty_maps[] = {"VCPUs_params", "platform", "other_config"};
	struct value *record = value_new_struct();

	value_set_string(record, "name_label", args_operand(args, 0));
	value_set_string(record, "name_description", args_value(args, "description", ""));
	value_set_int(record, "user_version", 1);
	value_set_bool(record, "is_a_template", false);
	value_set_string(record, "affinity", REF_NULL);
	for (size_t i = 0; i < ARRAY_SIZE(memory_fields); i++)
		value_set_int(record, memory_fields[i], (int64_t)memory);
	value_set_int(record, "VCPUs_max", (int64_t)vcpus);
	value_set_int(record, "VCPUs_at_startup", (int64_t)vcpus);
	value_set_string(record, "actions_after_shutdown", "destroy");
	value_set_string(record, "actions_after_reboot", "restart");
	value_set_string(record, "actions_after_crash", "restart");
	value_set_string(record, "HVM_boot_policy", "BIOS order");
	value_set(record, "HVM_boot_params", value_set_string(value_new_struct(), "order", "cd"));
	for (size_t i = 0; i < ARRAY_SIZE(empty_strings); i++)
		value_set_string(record, empty_strings[i], "");
	for (size_t i = 0; i < ARRAY_SIZE(empty_maps); i++)
		value_set(record, empty_maps[i], value_new_struct());
	return record;
}

/* Finds what all words of an option name, before anything is made. *refs: an array. */
static int find_all(struct context *context, const char *option, const char *class,
	struct value *refs, struct fault *fault)
{
	const char *name;

	for (size_t at = 0; (name = args_next(context->args, option, &at));) {
		struct object object CLEANUP_OBJECT = OBJECT_INIT;
		int r = object_find(context->session, class, name, &object, fault);
		if (r < 0)
			return r;
		value_append_string(refs, object.ref);
	}
	return 0;
}

static int attach_all(struct session *session, const char *vm, const struct value *vdis,
	const struct value *networks, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; i < vdis->array.n_items && r == 0; i++) {
		const struct device_disk disk = {
			.vm = vm,
			.vdi = value_string(vdis->array.items[i], ""),
			.mode = "RW",
			.bootable = i == 0,
		};
		r = device_attach_disk(session, &disk, NULL, fault);
	}
	for (size_t i = 0; i < networks->array.n_items && r == 0; i++) {
		const struct device_card card = {
			.vm = vm,
			.network = value_string(networks->array.items[i], ""),
			.mac = "",
		};
		r = device_attach_card(session, &card, NULL, fault);
	}
	return r;
}

static int vm_create(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *vdis CLEANUP_VALUE = value_new_array();
	struct value *networks CLEANUP_VALUE = value_new_array();
	struct value *ref CLEANUP_VALUE = NULL;
	const char *vcpus_text = args_value(args, "vcpus", "1");
	uint64_t memory = 0;
	uint64_t vcpus = 1;
	int r = args_size(args, "memory", UINT64_C(256) << 20, &memory, fault);

	if (r == 0 && parse_range(vcpus_text, 1, 512, &vcpus) < 0)
		r = cli_usage(
			fault, "--vcpus is \"%s\", but must be a number from 1 to 512", vcpus_text);
	if (r == 0)
		r = context_session(context, fault);
	if (r == 0)
		r = find_all(context, "disk", "VDI", vdis, fault);
	if (r == 0)
		r = find_all(context, "network", "network", networks, fault);
	if (r < 0)
		return r;
	r = session_call(
		context->session, &ref, fault, "VM.create", make_record(args, memory, vcpus), NULL);
	if (r < 0)
		return r;
	r = attach_all(context->session, value_string(ref, ""), vdis, networks, fault);
	if (r < 0) {
		/* All or nothing; the disks were there before and stay. */
		(void)session_call(
			context->session, NULL, NULL, "VM.destroy", value_copy(ref), NULL);
		return r;
	}
	return context_put_created(context, "VM", ref, fault);
}

/* --- Removing one -------------------------------------------------------------------------------
 */

/* The VDIs of its disks (not of its drives). */
static int disks_of(
	struct context *context, const struct object *vm, struct value *refs, struct fault *fault)
{
	const struct value *vbds = value_find(vm->record, "VBDs");

	for (size_t i = 0; vbds && vbds->type == VALUE_ARRAY && i < vbds->array.n_items; i++) {
		struct object vbd CLEANUP_OBJECT = OBJECT_INIT;
		int r = object_load(context->session, "VBD", value_string(vbds->array.items[i], ""),
			&vbd, fault);
		if (r < 0)
			return r;
		if (strcmp(object_string(&vbd, "type"), "Disk") == 0 &&
			!ref_is_null(object_string(&vbd, "VDI")))
			value_append_string(refs, object_string(&vbd, "VDI"));
	}
	return 0;
}

static int vm_destroy(struct context *context, struct fault *fault)
{
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	struct value *disks CLEANUP_VALUE = value_new_array();
	int r = view_find(context, &view, &vm, fault);

	if (r == 0 && args_has(context->args, "with-disks"))
		r = disks_of(context, &vm, disks, fault);
	if (r == 0)
		r = session_call(context->session, NULL, fault, "VM.destroy",
			value_new_string(vm.ref), NULL);
	for (size_t i = 0; i < disks->array.n_items && r == 0; i++)
		r = session_call(context->session, NULL, fault, "VDI.destroy",
			value_copy(disks->array.items[i]), NULL);
	return r;
}

static const struct option list_options[] = {
	{"all", NULL, NULL, "templates, snapshots and control domains too", false, false},
};

static const struct option create_options[] = {
	{"memory", "SIZE", NULL, "its memory (256M)", false, false},
	{"vcpus", "NUMBER", NULL, "its processors (1)", false, false},
	{"disk", "VDI", "VDI", "a disk to put into it; it starts from the first", false, true},
	{"network", "NETWORK", "network", "a network to join it to", false, true},
	{"description", "TEXT", NULL, "description", false, false},
};

static const struct option destroy_options[] = {
	{"with-disks", NULL, NULL, "destroy its disks and their data too", false, false},
};

const struct command vm_commands[N_VM_COMMANDS] = {
	{"vm", "list", vm_list, {{0}}, COMMAND_OPTIONS(list_options), "lists the virtual machines"},
	{"vm", "show", vm_show, {{"VM", "VM", false}},
		.help = "shows one, its disks and network cards"},
	{"vm", "create", vm_create, {{"NAME", NULL, false}}, COMMAND_OPTIONS(create_options),
		"makes a virtual machine and prints its uuid"},
	{"vm", "destroy", vm_destroy, {{"VM", "VM", false}}, COMMAND_OPTIONS(destroy_options),
		"removes a virtual machine; its disks stay"},
	{"vm", "start", vm_start, {{"VM", "VM", false}}, COMMAND_OPTIONS(vm_start_options),
		"starts a halted virtual machine"},
	{"vm", "shutdown", vm_shutdown, {{"VM", "VM", false}}, COMMAND_OPTIONS(vm_end_options),
		"asks the guest to shut down, and waits until it has"},
	{"vm", "reboot", vm_reboot, {{"VM", "VM", false}}, COMMAND_OPTIONS(vm_end_options),
		"the same, and starts it again"},
	{"vm", "pause", vm_pause, {{"VM", "VM", false}},
		.help = "stops a running one's processors"},
	{"vm", "unpause", vm_unpause, {{"VM", "VM", false}}, .help = "lets a paused one go on"},
	{"vm", "migrate", vm_migrate, {{"VM", "VM", false}}, COMMAND_OPTIONS(vm_migrate_options),
		"moves a virtual machine and its disks to another pool"},
	{"vm", "clone", vm_clone, {{"VM", "VM", false}, {"NAME", NULL, false}},
		.help = "makes another of a halted one, with its disks, and prints its uuid"},
	{"vm", "copy", vm_copy, {{"VM", "VM", false}, {"NAME", NULL, false}},
		COMMAND_OPTIONS(vm_copy_options), "the same, with its disks in another SR"},
	{"vm", "snapshot", vm_snapshot, {{"VM", "VM", false}, {"NAME", NULL, false}},
		.help = "keeps one as it is now and prints the snapshot's uuid"},
	{"vm", "snapshot-revert", vm_revert, {{"SNAPSHOT", "VM", false}},
		.help = "makes the virtual machine what it was at the snapshot"},
	{"vm", "export-metadata", vm_export_metadata,
		{{"VM", "VM", false}, {"FILE", "file", false}},
		.help = "writes all of one but its disks' content to a file (-: standard output)"},
	{"vm", "import-metadata", vm_import_metadata, {{"FILE", "file", false}},
		COMMAND_OPTIONS(metadata_import_options),
		"makes the virtual machines of such a file and prints their uuids"},
};
