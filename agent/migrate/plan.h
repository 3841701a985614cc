/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a sending migration: which disks, from where, to where. Made by the preflight, stored
 * in the document, executed as stored. Also the checks of VM.assert_can_migrate that need no peer.
 */
#ifndef FERRY_AGENT_MIGRATE_PLAN_H
#define FERRY_AGENT_MIGRATE_PLAN_H

#include "agent/migrate/supervisor.h"

/* Members of one disk of the plan ("disks" in the document is an array of these structs; disks that
 * stay in a repository that both hosts reach are not among them):
 *   vdi, vdi_uuid, name, path      source
 *   snapshot                       of a snapshot's disk: the snapshot's name
 *   sr                             ref in the destination pool; of a snapshot's disk also
 *                                  PEER_DEFAULT_SR
 *   size, allocated                of the disk in the image: bytes, and how many are data
 *   file_size, device, inode, mtime_sec, mtime_nsec   of the source's file when planned
 *   node                           of a guest that runs: its block node
 * The VM's own come first, then its snapshots', to which nobody writes. */

/* Adds to the maps of a move to another pool where the VM's snapshots go, as far as they do not say
 * it themselves: a disk to where the disk goes that it was taken of, a card to where the VM's card
 * with its address goes. */
int plan_complete_maps(struct pool_db *pool, const char *vm, struct value *vdi_map,
	struct value *vif_map, struct fault *fault);
/* The part of it that is about the disks of one snapshot. */
int plan_follow_disks(
	struct pool_db *pool, const char *snapshot, struct value *vdi_map, struct fault *fault);

/* What options say of a move, to be stored in the sender's document: copy (bool), live (bool: the
 * guest runs), max_downtime (ms; absent: the host's), throttle (bool), on_no_convergence ("abort",
 * "continue", "force"), on_read_error ("fail", "zero"), bandwidth (bytes/s; absent: the host's).
 * INVALID_VALUE [options:name, value]. */
int plan_options(const struct storage *storage, const struct migrate_request *request,
	struct value **ret_options, struct fault *fault);

/* Checks of section 2.6.2 that need no peer, and the plan. host: NULL, or the destination, a host
 * of this pool; the maps are rehome_maps' then: *ret_disks (array, see above) and *ret_manifest:
 * what Peer.prepare takes (metadata.h). options: of plan_options. */
int plan_make(const struct storage *storage, const struct migrate_request *request,
	const char *host, const struct value *options, struct value **ret_disks,
	struct value **ret_manifest, struct fault *fault);

/* -EBUSY with a fault when a disk's file, from the `first` on, is no longer what was planned (size,
 * inode, time of change). */
int plan_check_sources(const struct value *disks, size_t first, struct fault *fault);
/* Takes the files as they are now into the plan; -EINVAL when one holds a disk of another size. */
int plan_renew_sources(struct value *disks, struct fault *fault);

#endif
