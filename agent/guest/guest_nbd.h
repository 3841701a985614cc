/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server inside a guest's QEMU, and its exports. A QEMU has one server; it is never
 * stopped, as that can hang QEMU for good while a client is there, and ends with the guest. All
 * block on QEMU, up to 5 s a command. */
#ifndef FERRY_AGENT_GUEST_GUEST_NBD_H
#define FERRY_AGENT_GUEST_GUEST_NBD_H

#include "agent/guest/guest.h"
#include "base/fault.h"
#include "base/value.h"

/* Starts it, on the socket GUEST_NBD in the run folder, unless it runs. *ret_socket is the caller's
 * to free; ret_socket may be NULL. -EBUSY: it runs, but is somebody else's. */
int guest_nbd_ensure(struct guest *guest, char **ret_socket, struct fault *fault);

/* query-block-exports: an array. */
int guest_nbd_query_exports(struct guest *guest, struct value **ret_exports, struct fault *fault);
/* Ends an export, also one with a client, and waits until it is gone, up to 5 s; fine when there is
 * none. watch: of the guest, the caller's; the events in it are lost. */
int guest_nbd_end_export(
	struct guest *guest, struct guest_watch *watch, const char *id, struct fault *fault);

#endif
