/* SPDX-License-Identifier: Apache-2.0 */
/* What a running guest's QEMU has of a disk: asked of QEMU itself, as the VM's record may have
 * changed since it was started. */
#ifndef FERRY_AGENT_GUEST_GUEST_NODE_H
#define FERRY_AGENT_GUEST_GUEST_NODE_H

#include "agent/guest/guest.h"
#include "base/fault.h"

#include <stdbool.h>

/* Behind a disk's name in the names of its file nodes: "d0-file", "d0-file-1". */
#define GUEST_NODE_FILE "-file"

struct guest_node {
	char *name; /* "d0": root node of the disk's device; owned */
	bool is_raw;
	bool direct;      /* QEMU reads and writes the file with O_DIRECT */
	bool in_iothread; /* it must not be exported: QEMU 7.2 aborts when the client goes */
};

/* The disk whose image is the file at path. -ENOENT: the guest has none; errors of guest_command.
 * Blocks on QEMU, up to 5 s a command. */
int guest_node_find(
	struct guest *guest, const char *path, struct guest_node *ret_node, struct fault *fault);
void guest_node_clear(struct guest_node *node);

#define CLEANUP_GUEST_NODE CLEANUP(guest_node_clear)

#endif
