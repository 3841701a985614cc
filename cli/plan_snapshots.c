/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshots of a VM move with it. */
#include "cli/plan.h"

#include "base/alloc.h"

#include <string.h>

static int gather(struct context *context, struct plan *plan, const char *ref, struct fault *fault)
{
	struct object snapshot CLEANUP_OBJECT = OBJECT_INIT;
	int r = object_load(context->session, "VM", ref, &snapshot, fault);

	if (r == 0)
		r = plan_gather_disks(
			context, plan, &snapshot, object_string(&snapshot, "name_label"), fault);
	return r < 0 ? r : plan_gather_cards(context, plan, &snapshot, fault);
}

int plan_gather_snapshots(struct context *context, struct plan *plan, struct fault *fault)
{
	const struct value *snapshots = value_find(plan->vm.record, "snapshots");
	bool is_copy = strcmp(value_find_string(plan->options, "copy", ""), "true") == 0;
	int r = 0;

	if (!snapshots || snapshots->type != VALUE_ARRAY || is_copy)
		return 0;
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++)
		r = gather(context, plan, value_string(snapshots->array.items[i], ""), fault);
	return r;
}

void plan_follow_disks(struct plan *plan)
{
	for (size_t i = 0; i < plan->n_disks; i++) {
		struct plan_disk *disk = &plan->disks[i];
		for (size_t k = 0; k < plan->n_disks && disk->snapshot && !disk->sr; k++) {
			const struct plan_disk *of = &plan->disks[k];
			if (!of->sr ||
				strcmp(of->vdi.ref, object_string(&disk->vdi, "snapshot_of")) != 0)
				continue;
			disk->sr = xstrdup(of->sr);
			disk->to = xstrdup(of->to);
		}
	}
}
