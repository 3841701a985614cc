/* SPDX-License-Identifier: Apache-2.0 */
/* Storage repositories of type "file" and their VDIs: the database and the files kept in step.
 *
 * A VDI is a file <SR's location>/<VDI.location> and a row in pool.db. Both are made, and removed,
 * under a row "vdi-file" in the journal of agent.db; after a crash storage_recover() decides by one
 * rule: the file stays if and only if a VDI row names it. So there is never one without the other.
 */
#ifndef FERRY_AGENT_STORAGE_STORAGE_H
#define FERRY_AGENT_STORAGE_STORAGE_H

#include "base/fault.h"
#include "base/value.h"
#include "schema/agent_db.h"
#include "schema/pool_db.h"

#include <stdbool.h>
#include <stdint.h>

struct storage {
	struct pool_db *pool;
	struct agent_db *agent;
	const char *host_ref;
	const char *qemu_img; /* program; NULL: only raw images can be made */
};

/* fields: the SR's RW and CTOR fields plus the arguments of SR.create. device_config must hold
 * "location", an absolute path of an existing directory that the daemon's user can write and no
 * other SR uses. Makes SR and a plugged PBD; the directory of a shared one is marked with the SR's
 * uuid. XenAPI errors: SR_UNKNOWN_DRIVER [type], SR_BACKEND_FAILURE_<n> ["", message, ""]. */
int sr_create(const struct storage *storage, const struct value *device_config,
	const struct value *fields, char **ret_ref, struct fault *fault);
/* Other hosts may reach it from now on, or not any more: SR_HAS_MULTIPLE_PBDS [sr] while they do.
 */
int sr_set_shared(const struct storage *storage, const char *sr, bool shared, struct fault *fault);
/* Forgets SR, PBDs and VDI rows; the files stay. Refused while a VBD uses one of its VDIs, or with
 * SR_HAS_PBD [sr] while another host has it plugged. */
int sr_forget(const struct storage *storage, const char *sr, struct fault *fault);
/* The same, only when it holds no VDI: SR_NOT_EMPTY []. The directory stays. */
int sr_destroy(const struct storage *storage, const char *sr, struct fault *fault);
/* Takes in image files that no VDI names (*.raw, *.img, *.qcow2), marks VDIs whose file is gone
 * (missing), refreshes sizes. A file that cannot be taken in (no whole number of sectors, empty,
 * not regular, odd name, a qcow2 image that does not stand alone) is left alone and said in
 * SR.sm_config["skipped:<name>"]. */
int sr_scan(const struct storage *storage, const char *sr, struct fault *fault);
/* Makes physical_size, physical_utilisation, virtual_allocation and the VDIs' utilisation true. */
int sr_refresh(const struct storage *storage, const char *sr, struct fault *fault);
/* SR's directory; SR_NOT_ATTACHED [uuid] when unplugged here, SR_BACKEND_FAILURE_47 when it is
 * shared and the directory is not (any more) that of this SR. The caller frees it. */
int sr_location(
	const struct storage *storage, const char *sr, char **ret_path, struct fault *fault);

/* Connects this host, of which the PBD is: SR_BACKEND_FAILURE_<n> when its directory cannot be
 * used, or is not the SR's; SR_NOT_SHARABLE [sr, host] when another host has an SR that is not
 * shared. */
int sr_plug(const struct storage *storage, const char *pbd, struct fault *fault);
/* OTHER_OPERATION_IN_PROGRESS ["SR", sr] while this host makes or removes one of its files. */
int sr_check_idle(const struct storage *storage, const char *sr, struct fault *fault);

/* Files of this program in the directory of a shared SR begin so. */
#define STORAGE_OWN_PREFIX ".ferry-"

/* What hosts are working on there: struct of location -> {host: ref, need_bytes}. */
int storage_list_holds(const char *dir, struct value **ret_holds, struct fault *fault);

/* The format of a VDI's image, as the storage manager names it in VDI.sm_config. What counts is the
 * end of the file's name (target/image.h); the key says it. */
#define STORAGE_FORMAT_KEY "image-format"

/* record: the struct given to VDI.create; needs SR and virtual_size (rounded up to a sector; 0 and
 * negative are refused with INVALID_VALUE ["virtual_size", ...]). sm_config["image-format"] may be
 * "raw" (the default) or "qcow2". */
int vdi_create(const struct storage *storage, const struct value *record, char **ret_ref,
	struct fault *fault);
/* VDI_IN_USE [vdi, op] while a VBD is attached or a migration uses it. */
int vdi_destroy(const struct storage *storage, const char *vdi, struct fault *fault);
/* The same; a file that cannot be removed at once is the owner's, for storage_recover. */
int vdi_destroy_for(
	const struct storage *storage, const char *owner, const char *vdi, struct fault *fault);
int vdi_resize(
	const struct storage *storage, const char *vdi, int64_t virtual_size, struct fault *fault);
/* The image's path; VDI_MISSING [sr, vdi] if the file is gone; SR_BACKEND_FAILURE_46 if it is no
 * image of its format that stands alone. The caller frees it. */
int vdi_path(const struct storage *storage, const char *vdi, char **ret_path, struct fault *fault);

/* VDI_IN_USE [vdi, op] while a VBD of it is attached, a VM of it migrates, or another operation
 * runs on it. */
int vdi_check_idle(struct pool_db *pool, const char *vdi, const char *op, struct fault *fault);
/* The same, though it may be attached to that VM. */
int vdi_check_idle_beside(
	struct pool_db *pool, const char *vdi, const char *op, const char *vm, struct fault *fault);
/* Marks that the operation runs on it, under a key (a task's ref), and takes the mark away; each is
 * one transaction and keeps allowed_operations true. What only reads ("copy") may run beside others
 * that do. VDI_IN_USE [vdi, op], OTHER_OPERATION_IN_PROGRESS ["VDI", vdi, op, key] of what runs.
 * Forgetting the mark of a VDI that is gone is fine. */
int vdi_ensure_operation(struct pool_db *pool, const char *vdi, const char *key, const char *op,
	struct fault *fault);
int vdi_forget_operation(
	struct pool_db *pool, const char *vdi, const char *key, struct fault *fault);

/* For incoming migrations: makes the file that a later VDI row (location *ret_location, a file
 * name) will own, journalled for `owner`. Repeating it for the same vdi_uuid gives the same file,
 * made anew if it is missing. SR_BACKEND_FAILURE_44 ["", message, ""] when the SR has less free
 * space than need_bytes. */
int storage_prepare_disk(const struct storage *storage, const char *owner, const char *sr,
	const char *vdi_uuid, uint64_t size_bytes, uint64_t need_bytes, char **ret_location,
	char **ret_path, struct fault *fault);
/* Whether storage_prepare_disk could be done now for a new owner, who needs need_bytes in all in
 * that SR: the same faults. Makes nothing. */
int storage_check_disk(const struct storage *storage, const char *sr, const char *vdi_uuid,
	uint64_t need_bytes, struct fault *fault);
/* The VDI may soon be another file's: its file is journalled for `owner`, so that
 * storage_recover(owner) removes it once no VDI names it. Repeating it is fine. */
int storage_record_image(
	const struct storage *storage, const char *owner, const char *vdi, struct fault *fault);
/* Whether the SR is plugged in at the host: 1, 0, or a fault. */
int sr_is_plugged(struct pool_db *pool, const char *sr, const char *host_ref, struct fault *fault);
/* Applies the rule above to every "vdi-file" row of owner ("" for the daemon's own, NULL for all).
 */
int storage_recover(const struct storage *storage, const char *owner, struct fault *fault);
/* The same for marks of shared directories, before anybody makes one. */
void sr_recover_marks(const struct storage *storage);

#endif
