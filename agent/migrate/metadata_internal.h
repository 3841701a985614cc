/* SPDX-License-Identifier: Apache-2.0 */
/* What metadata.c and metadata_family.c share: one VM, be it a snapshot or not. */
#ifndef FERRY_AGENT_MIGRATE_METADATA_INTERNAL_H
#define FERRY_AGENT_MIGRATE_METADATA_INTERNAL_H

#include "agent/migrate/metadata.h"

/* Sets vm, metrics, vbds and vifs. */
int metadata_export_one(struct pool_db *pool, const char *vm, const struct value *disks,
	const struct value *vif_map, struct value *ret_manifest, struct fault *fault);
/* more: struct of further fields of the VM. vdis: refs of the disks. */
int metadata_import_one(struct pool_db *pool, const struct value *manifest,
	const struct value *more, const struct value *vdis, bool new_identity, char **ret_vm,
	struct fault *fault);

/* An index as the manifest has it, an int or text, from -1 (none) to n - 1; -EINVAL with a fault:
 * `who` must name a `what`. */
int metadata_read_index(const struct value *value, const char *who, const char *what, size_t n,
	int64_t *ret_index, struct fault *fault);

#endif
