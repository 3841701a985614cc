/* SPDX-License-Identifier: Apache-2.0 */
/* Which hosts reach a repository: its PBDs, one per host. */
#include "cli/sr_hosts.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/errors.h"
#include "cli/views.h"

#include <errno.h>
#include <string.h>

struct reach {
	struct object sr;
	struct object host;
	char *pbd;      /* of that host; NULL: none */
	char *location; /* of that */
	char *other;    /* location of another host's; NULL: none */
	bool is_plugged;
};

static void reach_clear(struct reach *reach)
{
	object_clear(&reach->sr);
	object_clear(&reach->host);
	free(reach->pbd);
	free(reach->location);
	free(reach->other);
}

static void take_pbd(struct reach *reach, const struct value_member *pbd)
{
	const char *location =
		value_find_string(value_find(pbd->value, "device_config"), "location", "");

	if (strcmp(value_find_string(pbd->value, "SR", ""), reach->sr.ref) != 0)
		return;
	if (strcmp(value_find_string(pbd->value, "host", ""), reach->host.ref) == 0) {
		reach->pbd = xstrdup(pbd->name);
		reach->location = xstrdup(location);
		reach->is_plugged = value_find_bool(pbd->value, "currently_attached", false);
	} else if (!reach->other) {
		reach->other = xstrdup(location);
	}
}

static int look(struct context *context, struct reach *reach, struct fault *fault)
{
	const char *host = args_value(context->args, "host", "");
	const struct value *pbds;
	int r = context_session(context, fault);

	if (r == 0)
		r = object_find(
			context->session, "SR", args_operand(context->args, 0), &reach->sr, fault);
	if (r == 0)
		r = object_find(context->session, "host", host, &reach->host, fault);
	if (r == 0)
		r = session_records(context->session, "PBD", &pbds, fault);
	for (size_t i = 0; r == 0 && i < pbds->record.n_members; i++)
		take_pbd(reach, &pbds->record.members[i]);
	return r;
}

static int call_pbd(
	struct context *context, const char *method, const char *pbd, struct fault *fault)
{
	return session_call(context->session, NULL, fault, method, value_new_string(pbd), NULL);
}

static int create_pbd(
	struct context *context, struct reach *reach, const char *location, struct fault *fault)
{
	struct value *record = value_new_struct();
	struct value *config = value_new_struct();
	struct value *ref CLEANUP_VALUE = NULL;

	value_set_string(config, "location", location);
	value_set_string(record, "host", reach->host.ref);
	value_set_string(record, "SR", reach->sr.ref);
	value_set(record, "device_config", config);
	value_set(record, "other_config", value_new_struct());
	int r = session_call(context->session, &ref, fault, "PBD.create", record, NULL);
	if (r < 0)
		return r;
	free(reach->pbd);
	reach->pbd = xstrdup(value_string(ref, ""));
	return 0;
}

/* A PBD that was there, and did not get plugged, stays as it was. */
int sr_attach(struct context *context, struct fault *fault)
{
	struct reach reach CLEANUP(reach_clear) = {.sr = OBJECT_INIT, .host = OBJECT_INIT};
	const char *wanted = args_value(context->args, "location", NULL);
	int r = look(context, &reach, fault);

	if (r < 0)
		return r;
	if (reach.is_plugged && (!wanted || strcmp(wanted, reach.location) == 0)) {
		context_note(context, "host %s has it already, at %s",
			object_string(&reach.host, "name_label"), reach.location);
		return 0;
	}
	if (reach.is_plugged)
		return cli_fail(fault, -EBUSY,
			"host %s has it already, at %s: `ferry sr detach` first",
			object_string(&reach.host, "name_label"), reach.location);
	bool is_made = !reach.pbd || (wanted && strcmp(wanted, reach.location) != 0);
	const char *location = wanted ? wanted : reach.other;
	if (is_made && !location)
		return cli_usage(fault, "no host has the SR: say where it is with --location");
	if (is_made && reach.pbd)
		r = call_pbd(context, "PBD.destroy", reach.pbd, fault);
	if (r == 0 && is_made)
		r = create_pbd(context, &reach, location, fault);
	if (r < 0)
		return r;
	r = call_pbd(context, "PBD.plug", reach.pbd, fault);
	if (r < 0 && is_made)
		call_pbd(context, "PBD.destroy", reach.pbd, NULL);
	return r;
}

int sr_detach(struct context *context, struct fault *fault)
{
	struct reach reach CLEANUP(reach_clear) = {.sr = OBJECT_INIT, .host = OBJECT_INIT};
	int r = look(context, &reach, fault);

	if (r < 0)
		return r;
	if (!reach.pbd)
		return cli_fail(fault, -ENOENT, "host %s does not have SR %s",
			object_string(&reach.host, "name_label"),
			object_string(&reach.sr, "name_label"));
	if (!reach.other)
		return cli_fail(fault, -EPERM,
			"host %s is the only one that has it: `ferry sr forget` or `ferry sr "
			"destroy` end the SR",
			object_string(&reach.host, "name_label"));
	if (reach.is_plugged)
		r = call_pbd(context, "PBD.unplug", reach.pbd, fault);
	return r < 0 ? r : call_pbd(context, "PBD.destroy", reach.pbd, fault);
}
