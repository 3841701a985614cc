/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's metadata between pools. Exported: every stored field that is not a reference into the
 * source pool and not a matter of the moment; the relations to disks and networks as indexes and
 * mapped refs. */
#ifndef FERRY_AGENT_MIGRATE_METADATA_H
#define FERRY_AGENT_MIGRATE_METADATA_H

#include "schema/pool_db.h"

/* *ret_manifest: struct {vm, metrics, vbds: [{fields, disk}], vifs: [{fields, network}], parent,
 * snapshots: [{ref, vm, metrics, vbds, vifs, parent, memory}]}. `disks`: refs of the VDIs that are
 * the disks of all of them, in the order of the plan ("disk" and "memory" are indexes into it, -1
 * for an empty drive and for none). "parent": an index into snapshots, -1 for none. snapshots: refs
 * of those that travel with the VM. vif_map: VIF ref -> network ref of the destination. */
int metadata_export(struct pool_db *pool, const char *vm, const struct value *snapshots,
	const struct value *disks, const struct value *vif_map, struct value **ret_manifest,
	struct fault *fault);

/* The same of a VM whose manifest that is, as it is by now, for the disks of the migration's plan.
 * What is left out of the one (snapshots that do not travel) is left out of the other. */
int metadata_export_again(struct pool_db *pool, const char *vm, const struct value *manifest,
	const struct value *plan, const struct value *vif_map, struct value **ret_manifest,
	struct fault *fault);
/* Of a manifest of metadata_export: refs of the snapshots, to be freed. */
struct value *metadata_snapshots(const struct value *manifest);

/* The fields of an object that travel. */
int metadata_export_object(struct pool_db *pool, const char *class_name, const char *ref,
	struct value **ret_fields, struct fault *fault);

/* The same, and what a newer pool sent with it: what is to be sent on. */
int metadata_export_whole(struct pool_db *pool, const char *class_name, const char *ref,
	struct value **ret_fields, struct fault *fault);

/* Makes VM, VM_metrics, VDIs, VBDs and VIFs, and those of the snapshots; inside a transaction of
 * the caller. disks: array of structs {sr, uuid, location, size, fields, snapshot_of: index into
 * it, or -1}. new_identity: a copy: VM, VBDs and VIFs get new uuids; else they keep theirs (a VBD
 * or VIF uuid that is taken is replaced). Values may have come over XML-RPC: ints as text are put
 * right. */
int metadata_import(struct pool_db *pool, const struct value *manifest, const struct value *disks,
	bool new_identity, char **ret_vm, struct fault *fault);

/* The members of `fields` that are stored fields of the class and travel; what else there is, as of
 * a newer pool, is for unknown_keep (unknown.h). FIELD_TYPE_ERROR. */
int metadata_import_fields(const char *class_name, const struct value *fields,
	struct value **ret_fields, struct fault *fault);
/* A uuid that is missing, malformed, taken, or not to be kept is left to object_create. */
void metadata_settle_uuid(
	struct pool_db *pool, const char *class, struct value *fields, bool new_identity);
/* Of a VBD or VIF; clients read these as decimal numbers, and sort by them. */
int metadata_check_position(
	const char *class, const struct value *fields, size_t number, struct fault *fault);

#endif
