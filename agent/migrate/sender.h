/* SPDX-License-Identifier: Apache-2.0 */
/* What the sending states do, in a thread of the migration's own.
 *
 * The sender's document: "vm", "vm_uuid", "name", "task", "operation" (key in
 * VM.current_operations), "token", "vif_map", the options (plan_options), "disks" (plan.h),
 * "manifest", "sent" (bytes per disk, with what was sent again), "limits" (of the guest's disks,
 * before the first throttle), "sealing" (the destination may have been asked to seal), "pause"
 * (what it was made of), "vm_there" once committed, "error", "cancelled_by" ... */
#ifndef FERRY_AGENT_MIGRATE_SENDER_H
#define FERRY_AGENT_MIGRATE_SENDER_H

#include "agent/migrate/migration.h"

/* Runs the migration from its present state to its end, or until the daemon stops. */
void sender_run(struct migration *migration);

#endif
