/* SPDX-License-Identifier: Apache-2.0 */
/* A move between two hosts of one pool. Both sides have the same database, so the VM is not
 * imported but given a new home: VM, devices and disks keep ref and uuid; the rows of the disks
 * that were copied name their new files.
 *
 * In the manifest: same_pool (true), vm_ref, source_host, operation (the key of the sender's mark
 * in VM.current_operations), shared (VDI refs: disks in a repository that both hosts reach), and
 * for each of disks vdi and from_sr. */
#ifndef FERRY_AGENT_MIGRATE_REHOME_H
#define FERRY_AGENT_MIGRATE_REHOME_H

#include "agent/migrate/supervisor.h"

/* --- Sender --------------------------------------------------------------------------------------
 */

/* The ref in the token, if it is a host of this pool; NULL: the destination is another pool. */
const char *rehome_destination(struct pool_db *pool, const struct value *dest);
/* May it come to that host? OPERATION_NOT_ALLOWED (it is this one), HOST_NOT_LIVE [],
 * HOST_DISABLED [host]. */
int rehome_check_host(const struct storage *storage, const char *host, struct fault *fault);

/* The maps of a move to that host, to be freed: a disk that is not in vdi_map stays in its SR if
 * the host reaches that, and is left out otherwise; one of a snapshot then goes where the disk goes
 * that it was taken of. Every card stays in its network.
 * OPERATION_NOT_ALLOWED: vif_map wants another network. */
int rehome_maps(const struct storage *storage, const struct migrate_request *request,
	const char *host, struct value **ret_vdi_map, struct value **ret_vif_map,
	struct fault *fault);
/* What VM.pool_migrate makes of its options: a vdi_map with every disk that the host does not
 * reach. Without an option that is the pool's default SR if the host reaches that, else the host's
 * SR with the most free space. VM_REQUIRES_SR [vm, sr], HANDLE_INVALID, INVALID_VALUE. */
int rehome_choose_srs(const struct storage *storage, const char *vm, const char *host,
	const struct value *options, struct value **ret_vdi_map, struct fault *fault);

/* Whether the disk stays in its file: the map says its own SR. */
bool rehome_is_shared(struct pool_db *pool, const struct value *vdi_map, const char *vdi);
/* A CD that the host does not reach, in a drive of a guest that runs: OPERATION_NOT_ALLOWED. */
int rehome_check_drives(
	struct pool_db *pool, const char *vm, const char *host, struct fault *fault);

/* --- Receiver ------------------------------------------------------------------------------------
 */

bool rehome_is_wanted(const struct value *manifest);
/* What the manifest says of this pool is true, and this host reaches the disks that are shared. */
int rehome_check(const struct storage *storage, const struct value *manifest, struct fault *fault);
/* In a transaction of the caller: the VM is this host's. disks: the receiver's (receiver.h).
 * marked: the sender's mark must be there (-ECANCELED): a sender that gives the move up takes it
 * away. */
int rehome_commit(const struct storage *storage, const struct value *manifest,
	const struct value *disks, bool marked, struct fault *fault);

#endif
