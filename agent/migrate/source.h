/* SPDX-License-Identifier: Apache-2.0 */
/* The source pool's side of a sending migration: the VM is locked, unlocked, or forgotten.
 * Idempotent. */
#ifndef FERRY_AGENT_MIGRATE_SOURCE_H
#define FERRY_AGENT_MIGRATE_SOURCE_H

#include "agent/migrate/migration.h"

/* Marks the operation in VM.current_operations and in its disks', after checking once more that
 * none runs, and that the VM is still what was planned: -EBUSY. */
int source_lock(struct migration *migration, struct fault *fault);
/* Whether the destination is a host of this pool: source and destination have one database. */
bool source_is_same_pool(struct migration *migration);
/* Then, before the destination can commit: the files that no VDI names afterwards are journalled,
 * until source_unlock or source_forget. */
int source_record(struct migration *migration, struct fault *fault);
/* Takes the marks away. Of a move within the pool, files that no VDI names any more go too. */
int source_unlock(struct migration *migration, struct fault *fault);
/* Removes VM, devices, metrics and disks with their files: only after the commit. The disks stay
 * when the commit was assumed (attention.h). Within the pool it is source_unlock, as all but the
 * files is the destination's now. */
int source_forget(struct migration *migration, struct fault *fault);

#endif
