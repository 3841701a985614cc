/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server inside a guest's QEMU. A QEMU has one; it is never stopped, as that can hang QEMU
 * for good while a client is there, and ends with the guest. */
#ifndef FERRY_AGENT_GUEST_GUEST_NBD_H
#define FERRY_AGENT_GUEST_GUEST_NBD_H

#include "agent/guest/guest.h"
#include "base/fault.h"

/* Starts it, on the socket GUEST_NBD in the run folder, unless it runs. *ret_socket is the caller's
 * to free. -EBUSY: it runs, but is somebody else's. Blocks on QEMU, up to 5 s. */
int guest_nbd_ensure(struct guest *guest, char **ret_socket, struct fault *fault);

#endif
