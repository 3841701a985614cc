/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/clock.h"
#include "cli/errors.h"
#include "cli/metadata.h"
#include "cli/session.h"
#include "cli/views.h"

#include <errno.h>

/* All objects of the host that joins travel in one call. */
#define JOIN_USEC (180 * USEC_PER_SEC)

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

static int write_hosts(struct context *context, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = value_new_array();
	const struct value *hosts = NULL;
	int r = session_records(context->session, "host", &hosts, fault);

	for (size_t i = 0; r == 0 && i < hosts->record.n_members; i++)
		value_append_string(refs, hosts->record.members[i].name);
	return r < 0 ? r : view_write_some(context, &host_view, "Hosts", refs, fault);
}

static int pool_show(struct context *context, struct fault *fault)
{
	int r = view_show(context, &view, fault);

	return r < 0 || context->json ? r : write_hosts(context, fault);
}

/* The host that joins logs in by itself: it is given what this program would use. */
static int pool_join(struct context *context, struct fault *fault)
{
	struct session *coordinator CLEANUP_SESSION = NULL;
	char *fingerprint CLEANUP_FREE = NULL;
	int r = context_session(context, fault);

	if (r == 0)
		r = context_open(context, args_operand(context->args, 0), &coordinator, fault);
	if (r == 0)
		r = session_fingerprint(coordinator, &fingerprint, fault);
	if (r < 0)
		return r;
	session_set_patience(context->session, JOIN_USEC);
	r = session_call(context->session, NULL, fault, "pool.join",
		value_new_string(session_url(coordinator)),
		value_new_string(session_user(coordinator)),
		value_new_string(session_password(coordinator)), value_new_string(fingerprint),
		NULL);
	if (r == 0)
		context_note(context, "%s is a member of the pool of %s",
			session_url(context->session), session_url(coordinator));
	return r;
}

static int pool_eject(struct context *context, struct fault *fault)
{
	struct object host CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &host_view, &host, fault);

	return r < 0 ? r
		     : session_call(context->session, NULL, fault, "pool.eject",
			       value_new_string(host.ref), NULL);
}

/* At the member itself: the coordinator is not there to be asked. */
static int pool_emergency_transition(struct context *context, struct fault *fault)
{
	const struct session_params params = {
		.config = context->config,
		.server = args_value(context->args, "server", NULL),
		.timeout_usec = context->timeout_usec,
		.may_ask = true,
		.is_local = true,
	};
	struct session *session CLEANUP_SESSION = NULL;
	struct value *age CLEANUP_VALUE = NULL;
	int r = session_open(&params, &session, fault);

	if (r == 0)
		r = session_call(session, &age, fault, "pool.emergency_transition_to_master", NULL);
	if (r == 0)
		context_note(context,
			"%s becomes the coordinator, with a copy of the database that is %s s old; "
			"next: ferry pool recover-members",
			session_url(session), value_string(age, "?"));
	return r;
}

static int pool_designate(struct context *context, struct fault *fault)
{
	struct object host CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &host_view, &host, fault);

	if (r < 0)
		return r;
	session_set_patience(context->session, JOIN_USEC);
	return session_call(context->session, NULL, fault, "pool.designate_new_master",
		value_new_string(host.ref), NULL);
}

static int pool_recover_members(struct context *context, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = NULL;
	int r = context_session(context, fault);

	if (r < 0)
		return r;
	session_set_patience(context->session, JOIN_USEC);
	r = session_call(context->session, &hosts, fault, "pool.recover_slaves", NULL);
	if (r == 0)
		context_note(context, "hosts that follow %s: %zu; those that do not are in its log",
			session_url(context->session), hosts->array.n_items);
	return r;
}

const struct command pool_commands[N_POOL_COMMANDS] = {
	{"pool", "list", pool_list, .help = "lists the pool of the server"},
	{"pool", "show", pool_show, {{"POOL", "pool", false}}, .help = "shows the pool"},
	{"pool", "join", pool_join, {{"COORDINATOR", "server", false}},
		.help = "makes the server a member of another's pool"},
	{"pool", "eject", pool_eject, {{"HOST", "host", false}},
		.help = "makes a member a pool of its own again"},
	{"pool", "designate-coordinator", pool_designate, {{"HOST", "host", false}},
		.help = "makes a member the coordinator, in the place of the server"},
	{"pool", "emergency-transition", pool_emergency_transition,
		.help = "makes the server, a member, the coordinator: the other one is lost"},
	{"pool", "recover-members", pool_recover_members,
		.help = "makes the other hosts follow the server, the new coordinator"},
	{"pool", "export-metadata", pool_export_metadata, {{"FILE", "file", false}},
		.help = "writes all virtual machines, without their disks' content, to a file"},
};
