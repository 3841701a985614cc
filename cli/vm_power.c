/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/vm_power.h"

#include "base/value.h"
#include "cli/interrupt.h"
#include "cli/object.h"
#include "cli/views.h"
#include "cli/wait.h"

const struct option vm_start_options[N_VM_START_OPTIONS] = {
	{"paused", NULL, NULL, "do not let it run before `ferry vm unpause`", false, false},
};

const struct option vm_end_options[N_VM_END_OPTIONS] = {
	{"force", NULL, NULL, "do not ask the guest: as a power cut, or the reset button, would",
		false, false},
};

/* Follows the task that was started to its end; the first Ctrl-C cancels it. */
static int follow(struct context *context, const struct value *task, struct fault *fault)
{
	const char *ref = value_string(task, "");
	struct value *record CLEANUP_VALUE = NULL;
	int r = wait_for_task(context, ref, WAIT_CANCELS, &record, fault);

	if (r < 0)
		return r;
	(void)session_call(
		context->session, NULL, NULL, "task.destroy", value_new_string(ref), NULL);
	return wait_outcome(ref, record, fault);
}

static int find(struct context *context, struct object *vm, struct fault *fault)
{
	int r = context_session(context, fault);

	return r < 0 ? r
		     : object_find(
			       context->session, "VM", args_operand(context->args, 0), vm, fault);
}

static int operate(struct context *context, const char *method, struct fault *fault)
{
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	struct value *task CLEANUP_VALUE = NULL;
	int r = find(context, &vm, fault);

	/* A Ctrl-C must not lose the ref of a task that was started: it counts in the wait. */
	if (r == 0) {
		session_set_cancel(context->session, interrupt_second());
		r = session_call(
			context->session, &task, fault, method, value_new_string(vm.ref), NULL);
	}
	return r < 0 ? r : follow(context, task, fault);
}

int vm_start(struct context *context, struct fault *fault)
{
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	struct value *task CLEANUP_VALUE = NULL;
	bool paused = args_has(context->args, "paused");
	int r = find(context, &vm, fault);

	if (r == 0) {
		session_set_cancel(context->session, interrupt_second());
		r = session_call(context->session, &task, fault, "Async.VM.start",
			value_new_string(vm.ref), value_new_bool(paused), value_new_bool(false),
			NULL);
	}
	return r < 0 ? r : follow(context, task, fault);
}

int vm_shutdown(struct context *context, struct fault *fault)
{
	bool force = args_has(context->args, "force");

	return operate(
		context, force ? "Async.VM.hard_shutdown" : "Async.VM.clean_shutdown", fault);
}

int vm_reboot(struct context *context, struct fault *fault)
{
	bool force = args_has(context->args, "force");

	return operate(context, force ? "Async.VM.hard_reboot" : "Async.VM.clean_reboot", fault);
}

int vm_pause(struct context *context, struct fault *fault)
{
	return operate(context, "Async.VM.pause", fault);
}

int vm_unpause(struct context *context, struct fault *fault)
{
	return operate(context, "Async.VM.unpause", fault);
}
