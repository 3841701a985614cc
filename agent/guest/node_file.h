/* SPDX-License-Identifier: Apache-2.0 */
/* Exchanging the file below a running guest's disk. QEMU is confined to the files that it was
 * started with, so a new one is opened here and handed over as a descriptor, with its path as the
 * descriptor's note: what QEMU itself knows of it is "/dev/fdset/N". All block on QEMU, up to 5 s a
 * command. */
#ifndef FERRY_AGENT_GUEST_NODE_FILE_H
#define FERRY_AGENT_GUEST_NODE_FILE_H

#include "agent/guest/guest.h"
#include "agent/guest/guest_node.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>

/* The path of what QEMU calls filename; fdsets is the answer to query-fdsets. Borrowed from either.
 */
const char *node_file_path(const struct value *fdsets, const char *filename);

/* Gives QEMU the image file at path for the disk, beside the one in use; one that it
 * has already is found. Nothing is left of it after an error. The caller frees *ret_file.
 * -EOPNOTSUPP: the guest reads and writes past the page cache, and the new file's file system
 * cannot. */
int node_file_add(struct guest *guest, const struct guest_node *node, const char *path,
	char **ret_file, struct fault *fault);
/* From here on the disk is that file. The guest must be stopped, and both files must be the same.
 */
int node_file_use(
	struct guest *guest, const struct guest_node *node, const char *file, struct fault *fault);
/* The path of the file in use. The caller frees it. -ENOENT: QEMU has no such node. */
int node_file_in_use(struct guest *guest, const char *node, char **ret_path, struct fault *fault);
/* Takes back the files of the disk that are not in use. Idempotent. */
int node_file_drop_others(struct guest *guest, const char *node, struct fault *fault);

#endif
