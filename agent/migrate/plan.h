/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a sending migration: which disks, from where, to where. Made by the preflight, stored
 * in the document, executed as stored. Also the checks of VM.assert_can_migrate that need no peer.
 */
#ifndef FERRY_AGENT_MIGRATE_PLAN_H
#define FERRY_AGENT_MIGRATE_PLAN_H

#include "agent/migrate/supervisor.h"

/* Members of one disk of the plan ("disks" in the document is an array of these structs):
 *   vdi, vdi_uuid, name, path      source
 *   sr                             ref in the destination pool
 *   size, allocated                of the disk in the image: bytes, and how many are data
 *   file_size, device, inode, mtime_sec, mtime_nsec   of the source's file when planned */

/* Checks of section 2.6.2 that need no peer, and the plan: *ret_disks (array, see above) and
 * *ret_manifest: what Peer.prepare takes (metadata.h). copy: whether options ask for a copy. */
int plan_make(const struct storage *storage, const struct migrate_request *request, bool *ret_copy,
	struct value **ret_disks, struct value **ret_manifest, struct fault *fault);

/* -EBUSY with a fault when a disk's file is no longer what was planned (size, inode, time of
 * change). */
int plan_check_sources(const struct value *disks, struct fault *fault);

/* Reads an option of the request's map: "true"/"false" and the like; absent is the fallback. */
int plan_option_bool(const struct value *options, const char *name, bool fallback, bool *ret_value,
	struct fault *fault);

#endif
