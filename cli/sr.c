/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/sr_hosts.h"
#include "cli/views.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"TYPE", "type", COLUMN_TEXT, NULL},
	{"SIZE", "physical_size", COLUMN_SIZE, NULL},
	{"USED", "physical_utilisation", COLUMN_SIZE, NULL},
	{"VIRTUAL", "virtual_allocation", COLUMN_SIZE, NULL},
	{"VDIS", "VDIs", COLUMN_COUNT, NULL},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
	{"CONTENT", "content_type", COLUMN_TEXT, NULL},
	{"SHARED", "shared", COLUMN_BOOL, NULL},
	{"SM-CONFIG", "sm_config", COLUMN_MAP, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

static const struct view view = {.class = "SR", VIEW_COLUMNS(columns), .n_listed = 7};

static const struct column pbd_columns[] = {
	{"HOST", "host", COLUMN_NAME, "host"},
	{"ATTACHED", "currently_attached", COLUMN_BOOL, NULL},
	{"DEVICE-CONFIG", "device_config", COLUMN_MAP, NULL},
};

static const struct view pbd_view = {.class = "PBD", VIEW_COLUMNS(pbd_columns), .n_listed = 3};

static int sr_list(struct context *context, struct fault *fault)
{
	return view_list(context, &view, fault);
}

static int sr_show(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;

	if (context->json)
		return view_show(context, &view, fault);
	int r = view_find(context, &view, &object, fault);
	if (r == 0)
		r = view_write(context, &view, object.record, fault);
	if (r == 0)
		r = view_write_some(
			context, &pbd_view, "Hosts", value_find(object.record, "PBDs"), fault);
	if (r == 0)
		r = view_write_some(
			context, &vdi_view, "Disks", value_find(object.record, "VDIs"), fault);
	return r;
}

/* The host named by --host, or the pool's coordinator. The caller frees it. */
static int choose_host(struct context *context, char **ret_ref, struct fault *fault)
{
	const char *name = args_value(context->args, "host", NULL);
	const struct value *pools;

	if (name) {
		struct object host CLEANUP_OBJECT = OBJECT_INIT;
		int r = object_find(context->session, "host", name, &host, fault);
		if (r == 0)
			*ret_ref = TAKE_PTR(host.ref);
		return r;
	}
	int r = session_records(context->session, "pool", &pools, fault);
	if (r < 0)
		return r;
	const struct value *pool = pools->record.n_members ? pools->record.members[0].value : NULL;
	*ret_ref = xstrdup(value_find_string(pool, "master", ""));
	return 0;
}

static int read_device_config(
	const struct args *args, struct value *device_config, struct fault *fault)
{
	const char *location = args_operand(args, 1);
	const char *text;

	if (location)
		value_set_string(device_config, "location", location);
	for (size_t at = 0; (text = args_next(args, "device-config", &at));) {
		char *key CLEANUP_FREE = NULL;
		char *value CLEANUP_FREE = NULL;
		int r = args_split(text, "device-config", &key, &value, fault);
		if (r < 0)
			return r;
		value_set_string(device_config, key, value);
	}
	return 0;
}

static int sr_create(struct context *context, struct fault *fault)
{
	const struct args *args = context->args;
	struct value *device_config CLEANUP_VALUE = value_new_struct();
	struct value *ref CLEANUP_VALUE = NULL;
	char *host CLEANUP_FREE = NULL;
	int r = read_device_config(args, device_config, fault);

	if (r == 0)
		r = context_session(context, fault);
	if (r == 0)
		r = choose_host(context, &host, fault);
	if (r < 0)
		return r;
	r = session_call(context->session, &ref, fault, "SR.create", value_new_string(host),
		TAKE_PTR(device_config), value_new_int(0), value_new_string(args_operand(args, 0)),
		value_new_string(args_value(args, "description", "")),
		value_new_string(args_value(args, "type", "file")), value_new_string("user"),
		value_new_bool(args_has(args, "shared")), value_new_struct(), NULL);
	return r < 0 ? r : context_put_created(context, "SR", ref, fault);
}

/* SR.<what> of the operand. */
static int call_on_sr(struct context *context, const char *method, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &view, &object, fault);

	if (r < 0)
		return r;
	return session_call(
		context->session, NULL, fault, method, value_new_string(object.ref), NULL);
}

static int sr_scan(struct context *context, struct fault *fault)
{
	return call_on_sr(context, "SR.scan", fault);
}

static int sr_destroy(struct context *context, struct fault *fault)
{
	return call_on_sr(context, "SR.destroy", fault);
}

static int sr_forget(struct context *context, struct fault *fault)
{
	return call_on_sr(context, "SR.forget", fault);
}

static const struct option create_options[] = {
	{"type", "TYPE", NULL, "kind of repository (file)", false, false},
	{"device-config", "KEY=VALUE", NULL, "how the host reaches it", false, true},
	{"host", "HOST", "host", "host that makes it (the coordinator)", false, false},
	{"shared", NULL, NULL, "other hosts of the pool may reach it too (sr attach)", false,
		false},
	{"description", "TEXT", NULL, "description", false, false},
};

static const struct option attach_options[] = {
	{"host", "HOST", "host", "the host that is to reach it", true, false},
	{"location", "FOLDER", "file", "where it is there (as at another host)", false, false},
};

static const struct option detach_options[] = {
	{"host", "HOST", "host", "the host that is to reach it no more", true, false},
};

const struct command sr_commands[N_SR_COMMANDS] = {
	{"sr", "list", sr_list, .help = "lists the storage repositories"},
	{"sr", "show", sr_show, {{"SR", "SR", false}}, .help = "shows one and its disks"},
	{"sr", "create", sr_create, {{"NAME", NULL, false}, {"FOLDER", "file", true}},
		COMMAND_OPTIONS(create_options), "makes a storage repository and prints its uuid"},
	{"sr", "attach", sr_attach, {{"SR", "SR", false}}, COMMAND_OPTIONS(attach_options),
		"lets one more host reach a shared one"},
	{"sr", "detach", sr_detach, {{"SR", "SR", false}}, COMMAND_OPTIONS(detach_options),
		"the opposite; the SR and its disks stay"},
	{"sr", "scan", sr_scan, {{"SR", "SR", false}}, .help = "takes in images found there"},
	{"sr", "destroy", sr_destroy, {{"SR", "SR", false}}, .help = "destroys an empty one"},
	{"sr", "forget", sr_forget, {{"SR", "SR", false}}, .help = "forgets one; images stay"},
};
