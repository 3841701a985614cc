/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/vm_migrate.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/disks.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/plan.h"
#include "cli/wait.h"

#include <errno.h>
#include <string.h>

const struct option vm_migrate_options[N_VM_MIGRATE_OPTIONS] = {
	{"to", "SERVER", "server", "another pool, as in --server", false, false},
	{"host", "HOST", "host",
		"host there (the first that is enabled); without --to, of this pool", false, false},
	{"sr", "SR", "SR", "where disks go that do not stay (the default SR there)", false, false},
	{"map", "VDI=SR", NULL, "where one disk goes", false, true},
	{"network", "NETWORK", "network", "for the network cards (the one of the same name)", false,
		false},
	{"vif-map", "VIF=NETWORK", NULL, "for one card: uuid, MAC address or number", false, true},
	{"transfer-network", "NETWORK", "network", "for the data (the management network)", false,
		false},
	{"copy", NULL, NULL, "keep the source: the copy gets a uuid of its own", false, false},
	{"on-read-error", "WHAT", "fail|zero", "when a sector of a disk cannot be read (fail)",
		false, false},
	{"option", "KEY=VALUE", NULL, "further options of VM.migrate_send", false, true},
	{"dry-run", NULL, NULL, "check, show the plan, and move nothing", false, false},
	{"no-wait", NULL, NULL, "print the task's uuid and return", false, false},
};

struct move {
	struct plan plan;
	struct value *token; /* what the destination said to host.migrate_receive */
	bool live;
};

/* The arguments that assert_can_migrate and migrate_send share. */
static int call_move(struct context *context, const struct move *move, const char *method,
	struct value **ret_result, struct fault *fault)
{
	return session_call(context->session, ret_result, fault, method,
		value_new_string(move->plan.vm.ref), value_copy(move->token),
		value_new_bool(move->live), plan_vdi_map(&move->plan), plan_vif_map(&move->plan),
		value_copy(move->plan.options), NULL);
}

/* The uuid of the VM at the destination; "" when it cannot be asked. The caller frees it. */
static char *arrived_uuid(struct context *context, const struct value *task)
{
	char *ref CLEANUP_FREE = wait_result(task);
	struct value *uuid CLEANUP_VALUE = NULL;

	session_set_cancel(context->peer, interrupt_second());
	if (session_call(context->peer, &uuid, NULL, "VM.get_uuid", value_new_string(ref), NULL) <
		0)
		return xstrdup("");
	return xstrdup(value_string(uuid, ""));
}

static void write_result(
	struct context *context, const struct move *move, const struct value *task, double seconds)
{
	const struct value *config = value_find(task, "other_config");
	const char *migration = value_find_string(config, "ferry:migration", "");
	struct value *disks CLEANUP_VALUE = disks_read(config, "ferry:disk:");
	struct value *unreadable CLEANUP_VALUE = disks_read(config, "ferry:unreadable:");
	char *uuid CLEANUP_FREE = arrived_uuid(context, task);

	if (context->json) {
		struct value *json CLEANUP_VALUE = value_new_struct();
		value_set_string(json, "vm", uuid);
		value_set_string(json, "name", object_string(&move->plan.vm, "name_label"));
		value_set_string(json, "migration", migration);
		value_set_string(json, "to", session_url(context->peer));
		value_set(json, "seconds", value_new_double(seconds));
		value_set(json, "disks", TAKE_PTR(disks));
		value_set(json, "unreadable", TAKE_PTR(unreadable));
		context_put_json(context, json);
		return;
	}
	buf_printf(&context->out, "VM         %s\nMIGRATION  %s\nSECONDS    %.1f\n", uuid,
		*migration ? migration : "-", seconds);
	if (disks->array.n_items)
		buf_append_char(&context->out, '\n');
	disks_write(disks, &context->out);
	disks_write_unreadable(unreadable, &context->out);
}

static int write_task(struct context *context, const char *task, struct fault *fault)
{
	struct value *uuid CLEANUP_VALUE = NULL;
	int r = session_call(
		context->session, &uuid, fault, "task.get_uuid", value_new_string(task), NULL);

	if (r < 0)
		return r;
	if (context->json) {
		struct value *json CLEANUP_VALUE = value_new_struct();
		value_set_string(json, "task", value_string(uuid, ""));
		context_put_json(context, json);
	} else {
		buf_printf(&context->out, "%s\n", value_string(uuid, ""));
	}
	return 0;
}

static int run(struct context *context, const struct move *move, struct fault *fault)
{
	struct value *task CLEANUP_VALUE = NULL;
	struct value *record CLEANUP_VALUE = NULL;
	uint64_t begun = clock_now_usec();

	/* A Ctrl-C must not lose the ref of a task that was started: it counts in the wait. */
	session_set_cancel(context->session, interrupt_second());
	int r = call_move(context, move, "Async.VM.migrate_send", &task, fault);
	if (r < 0)
		return r;
	const char *ref = value_string(task, "");
	if (args_has(context->args, "no-wait"))
		return write_task(context, ref, fault);
	r = wait_for_task(context, ref, WAIT_CANCELS, &record, fault);
	if (r < 0)
		return r;
	double seconds = (double)(clock_now_usec() - begun) / (double)USEC_PER_SEC;
	/* What the task knew is in the record; it is removed as XenAPI's clients do. */
	(void)session_call(
		context->session, NULL, NULL, "task.destroy", value_new_string(ref), NULL);
	r = wait_outcome(ref, record, fault);
	if (r < 0)
		return r;
	if (cancel_is_requested(interrupt_first()))
		context_note(context, "the cancel came too late: the VM has moved");
	write_result(context, move, record, seconds);
	return 0;
}

static int migrate(struct context *context, struct move *move, struct fault *fault)
{
	int r = plan_make(context, &move->plan, fault);

	if (r < 0)
		return r;
	const char *power = object_string(&move->plan.vm, "power_state");
	move->live = strcmp(power, "Running") == 0 || strcmp(power, "Paused") == 0;
	r = session_call(context->peer, &move->token, fault, "host.migrate_receive",
		value_new_string(move->plan.host.ref),
		value_new_string(move->plan.transfer_network), value_new_struct(), NULL);
	if (r == 0)
		r = call_move(context, move, "VM.assert_can_migrate", NULL, fault);
	if (r < 0)
		return r;
	if (!args_has(context->args, "dry-run"))
		return run(context, move, fault);
	if (context->json) {
		struct value *json CLEANUP_VALUE = plan_to_json(context, &move->plan);
		context_put_json(context, json);
	} else {
		plan_write(context, &move->plan, &context->out);
	}
	return 0;
}

int vm_migrate(struct context *context, struct fault *fault)
{
	struct move move = {.plan = PLAN_INIT};
	const char *here = args_value(context->args, "server", NULL);
	const char *there = args_value(context->args, "to", NULL);
	int r = there ? 0 : plan_pool_check(context->args, fault);

	if (r == 0)
		r = context_session(context, fault);
	if (r == 0)
		r = context_open(context, there ? there : here, &context->peer, fault);
	if (r == 0)
		r = migrate(context, &move, fault);
	plan_clear(&move.plan);
	value_free(move.token);
	return r;
}
