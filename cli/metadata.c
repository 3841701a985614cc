/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/metadata.h"

#include "cli/file.h"
#include "cli/object.h"

const struct option metadata_import_options[N_METADATA_IMPORT_OPTIONS] = {
	{"restore", NULL, NULL, "keep uuids and MAC addresses, which new ones replace otherwise",
		false, false},
	{"dry-run", NULL, NULL, "only see whether it would succeed", false, false},
	{"force", NULL, NULL, "leave out disks that are not there", false, false},
};

static int export_to(
	struct context *context, const char *name, struct value *queries, struct fault *fault)
{
	struct file file CLEANUP_FILE = FILE_INIT;
	int r = file_create(&file, name, fault);

	if (r == 0)
		r = file_move(context, "/export_metadata", queries, &file, NULL, fault);
	return r < 0 ? r : file_keep(&file, fault);
}

int vm_export_metadata(struct context *context, struct fault *fault)
{
	struct value *queries CLEANUP_VALUE = value_new_struct();
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	int r = context_session(context, fault);

	if (r == 0)
		r = object_find(context->session, "VM", args_operand(context->args, 0), &vm, fault);
	if (r < 0)
		return r;
	value_set_string(queries, "ref", vm.ref);
	return export_to(context, args_operand(context->args, 1), queries, fault);
}

int pool_export_metadata(struct context *context, struct fault *fault)
{
	struct value *queries CLEANUP_VALUE = value_set_string(value_new_struct(), "all", "true");
	int r = context_session(context, fault);

	return r < 0 ? r : export_to(context, args_operand(context->args, 0), queries, fault);
}

int vm_import_metadata(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *queries CLEANUP_VALUE = value_new_struct();
	struct value *refs CLEANUP_VALUE = NULL;
	struct file file CLEANUP_FILE = FILE_INIT;
	int r = file_open(&file, args_operand(args, 0), fault);

	if (r == 0)
		r = context_session(context, fault);
	if (r < 0)
		return r;
	value_set_string(queries, "restore", args_has(args, "restore") ? "true" : "false");
	value_set_string(queries, "dry_run", args_has(args, "dry-run") ? "true" : "false");
	value_set_string(queries, "force", args_has(args, "force") ? "true" : "false");
	r = file_move(context, "/import_metadata", queries, &file, &refs, fault);
	for (size_t i = 0; r == 0 && refs && i < refs->array.n_items; i++)
		r = context_put_created(context, "VM", refs->array.items[i], fault);
	return r;
}
