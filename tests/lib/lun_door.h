/* SPDX-License-Identifier: Apache-2.0 */
/* A data port whose one door leads to a LUN (tests/lib/lun.h). */
#ifndef FERRY_TESTS_LIB_LUN_DOOR_H
#define FERRY_TESTS_LIB_LUN_DOOR_H

#include "agent/tunnel/tunnel.h"
#include "tests/lib/lun.h"

struct lun_door {
	char *dir, *certificate, *key, *fingerprint;
	struct tunnel *tunnel;
};

/* Starts the data port, with a certificate of its own. Ends the program when it cannot. */
void lun_door_start(struct lun_door *door);
void lun_door_stop(struct lun_door *door);

/* The door leads to this port of 127.0.0.1 from now on; links that it had are cut. */
void lun_door_lead_to(struct lun_door *door, uint16_t port);
/* The spec with its way through the door in the place of its own; borrows from the door. */
struct endpoint_spec lun_door_spec(const struct lun_door *door, struct endpoint_spec spec);

#endif
