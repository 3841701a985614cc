/* SPDX-License-Identifier: Apache-2.0 */
/* VMs without the content of their disks as one document, in the shape of XenAPI's ova.xml: struct
 * {version, objects: array of {class, id, snapshot}}, where the refs in a snapshot are ids of other
 * objects of the document, or null. What travels of an object is what a migration takes along
 * (metadata.h). Disks, networks, SRs and hosts are there for the import to find its own. */
#ifndef FERRY_AGENT_MIGRATE_OVA_H
#define FERRY_AGENT_MIGRATE_OVA_H

#include "schema/pool_db.h"

#include <stdbool.h>

/* Of the document, as XenAPI counts it. */
#define OVA_VERSION 2

/* vms: array of refs; each is there once. snapshots: theirs too. */
int ova_export(struct pool_db *pool, const struct value *vms, bool snapshots,
	struct value **ret_document, struct fault *fault);

struct ova_import {
	bool restore; /* uuids and MACs as they were; else new ones */
	bool dry_run; /* all is done and undone */
	bool force;   /* disks that are not here are left out; else the import fails */
	/* Further checks of what is to be made; may complete the fields. */
	int (*check_vm)(struct value *fields, struct fault *fault);
	int (*check_vif)(struct value *fields, struct fault *fault);
};

/* Makes VMs (halted), their metrics, VBDs and VIFs, and networks that are not here, in one
 * transaction. Disks must be here: by uuid, or by SR and location. *ret_vms: array of refs in the
 * document's order; of a dry run empty. IMPORT_ERROR [text] says which object and why,
 * IMPORT_ERROR_FAILED_TO_FIND_OBJECT [id], IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND [uuids],
 * VM_TO_IMPORT_IS_NOT_NEWER_VERSION [vm, version, version]. */
int ova_import(struct pool_db *pool, const struct value *document, const struct ova_import *how,
	struct value **ret_vms, struct fault *fault);

#endif
