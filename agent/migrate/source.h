/* SPDX-License-Identifier: Apache-2.0 */
/* The source pool's side of a sending migration: the VM is locked, unlocked, or forgotten.
 * Idempotent. */
#ifndef FERRY_AGENT_MIGRATE_SOURCE_H
#define FERRY_AGENT_MIGRATE_SOURCE_H

#include "agent/migrate/migration.h"

/* Marks the operation in VM.current_operations and in its disks', after checking once more that
 * none runs, and that the VM is still what was planned: -EBUSY. */
int source_lock(struct migration *migration, struct fault *fault);
/* Takes the marks away. */
int source_unlock(struct migration *migration, struct fault *fault);
/* Removes VM, devices, metrics and disks with their files: only after the commit. The disks stay
 * when the commit was assumed (attention.h). */
int source_forget(struct migration *migration, struct fault *fault);

#endif
