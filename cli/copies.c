/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/copies.h"

#include "base/uuid.h"
#include "base/value.h"
#include "cli/interrupt.h"
#include "cli/object.h"
#include "cli/wait.h"

const struct option vm_copy_options[N_VM_COPY_OPTIONS] = {
	{"sr", "SR", "SR", "where its disks go (each to the SR that it is copied from)", false,
		false},
};

/* Starts the task with those parameters, which it takes over (the later ones may be NULL), and
 * follows it to its end; the first Ctrl-C cancels it. class: of what is made, whose uuid is
 * printed; NULL: nothing is. */
static int run(struct context *context, const char *method, const char *class, struct value *first,
	struct value *second, struct value *third, struct fault *fault)
{
	struct value *task CLEANUP_VALUE = NULL;
	struct value *record CLEANUP_VALUE = NULL;

	/* A Ctrl-C must not lose the ref of a task that was started: it counts in the wait. */
	session_set_cancel(context->session, interrupt_second());
	int r = session_call(context->session, &task, fault, method, first, second, third, NULL);
	if (r < 0)
		return r;
	const char *ref = value_string(task, "");
	r = wait_for_task(context, ref, WAIT_CANCELS, &record, fault);
	if (r < 0)
		return r;
	session_set_cancel(context->session, interrupt_second());
	(void)session_call(
		context->session, NULL, NULL, "task.destroy", value_new_string(ref), NULL);
	r = wait_outcome(ref, record, fault);
	if (r < 0 || !class)
		return r;
	char *made CLEANUP_FREE = wait_result(record);
	struct value *result CLEANUP_VALUE = value_new_string(made);
	return context_put_created(context, class, result, fault);
}

/* What the first operand names. */
static int find(
	struct context *context, const char *class, struct object *object, struct fault *fault)
{
	int r = context_session(context, fault);

	return r < 0 ? r
		     : object_find(context->session, class, args_operand(context->args, 0), object,
			       fault);
}

/* --- VMs ----------------------------------------------------------------------------------------
 */

static int make_vm(struct context *context, const char *method, struct fault *fault)
{
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	int r = find(context, "VM", &vm, fault);

	return r < 0 ? r
		     : run(context, method, "VM", value_new_string(vm.ref),
			       value_new_string(args_operand(context->args, 1)), NULL, fault);
}

int vm_clone(struct context *context, struct fault *fault)
{
	return make_vm(context, "Async.VM.clone", fault);
}

int vm_snapshot(struct context *context, struct fault *fault)
{
	return make_vm(context, "Async.VM.snapshot", fault);
}

int vm_copy(struct context *context, struct fault *fault)
{
	struct object vm CLEANUP_OBJECT = OBJECT_INIT;
	struct object sr CLEANUP_OBJECT = OBJECT_INIT;
	const char *name = args_value(context->args, "sr", NULL);
	int r = find(context, "VM", &vm, fault);

	if (r == 0 && name)
		r = object_find(context->session, "SR", name, &sr, fault);
	return r < 0 ? r
		     : run(context, "Async.VM.copy", "VM", value_new_string(vm.ref),
			       value_new_string(args_operand(context->args, 1)),
			       value_new_string(name ? sr.ref : REF_NULL), fault);
}

int vm_revert(struct context *context, struct fault *fault)
{
	struct object snapshot CLEANUP_OBJECT = OBJECT_INIT;
	int r = find(context, "VM", &snapshot, fault);

	return r < 0 ? r
		     : run(context, "Async.VM.revert", NULL, value_new_string(snapshot.ref), NULL,
			       NULL, fault);
}

/* --- Disks --------------------------------------------------------------------------------------
 */

static int make_disk(struct context *context, const char *method, struct fault *fault)
{
	struct object vdi CLEANUP_OBJECT = OBJECT_INIT;
	int r = find(context, "VDI", &vdi, fault);

	return r < 0 ? r
		     : run(context, method, "VDI", value_new_string(vdi.ref), NULL, NULL, fault);
}

int vdi_clone(struct context *context, struct fault *fault)
{
	return make_disk(context, "Async.VDI.clone", fault);
}

int vdi_snapshot(struct context *context, struct fault *fault)
{
	return make_disk(context, "Async.VDI.snapshot", fault);
}

int vdi_copy(struct context *context, struct fault *fault)
{
	struct object vdi CLEANUP_OBJECT = OBJECT_INIT;
	struct object sr CLEANUP_OBJECT = OBJECT_INIT;
	int r = find(context, "VDI", &vdi, fault);

	if (r == 0)
		r = object_find(context->session, "SR", args_operand(context->args, 1), &sr, fault);
	return r < 0 ? r
		     : run(context, "Async.VDI.copy", "VDI", value_new_string(vdi.ref),
			       value_new_string(sr.ref), NULL, fault);
}
