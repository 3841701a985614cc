/* SPDX-License-Identifier: Apache-2.0 */
/* Putting disks and network cards into a VM. */
#ifndef FERRY_CLI_DEVICE_H
#define FERRY_CLI_DEVICE_H

#include "base/fault.h"
#include "base/value.h"
#include "cli/session.h"

#include <stdbool.h>

struct device_disk {
	const char *vm; /* refs */
	const char *vdi;
	const char *place; /* decimal text; NULL: the first that is free */
	const char *mode;  /* "RO", "RW" */
	bool bootable;
};

int device_attach_disk(struct session *session, const struct device_disk *disk,
	struct value **ret_ref, struct fault *fault);

struct device_card {
	const char *vm; /* refs */
	const char *network;
	const char *place; /* decimal text; NULL: the first that is free */
	const char *mac;   /* "": the server makes one */
};

int device_attach_card(struct session *session, const struct device_card *card,
	struct value **ret_ref, struct fault *fault);

#endif
