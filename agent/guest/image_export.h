/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of a running guest as the guest sees it, offered read-only by its own QEMU: how an image
 * that is not raw is read while the guest writes to it. A disk may be exported more than once. The
 * exports are in QEMU, by the job's name, so that those that an earlier agent left are found. */
#ifndef FERRY_AGENT_GUEST_IMAGE_EXPORT_H
#define FERRY_AGENT_GUEST_IMAGE_EXPORT_H

#include "agent/guest/guest.h"
#include "agent/guest/guest_node.h"
#include "base/cleanup.h"
#include "base/fault.h"

struct image_export;

/* job: names the export, [a-z0-9-]. guest is borrowed until the close. -EOPNOTSUPP:
 * the node is in an iothread, where QEMU 7.2 aborts when a client goes. Blocks on QEMU, up to 5 s a
 * command. */
int image_export_open(struct guest *guest, const char *job, const struct guest_node *node,
	struct image_export **ret_export, struct fault *fault);
/* Ends it, and waits for its end; no client should be there any more. Blocks up to 10 s. NULL is
 * fine; returns NULL. */
struct image_export *image_export_close(struct image_export *image);

/* The export's own. */
const char *image_export_socket(const struct image_export *image);
const char *image_export_name(const struct image_export *image);

/* Ends every export of the job: what an agent that died has left. */
int image_export_forget(struct guest *guest, const char *job, struct fault *fault);

DEFINE_CLEANUP(struct image_export *, image_export_close)
#define CLEANUP_IMAGE_EXPORT CLEANUP(cleanup_image_export_close)

#endif
