/* SPDX-License-Identifier: Apache-2.0 */
/* The CONVERGING state of a sender: rounds that send what the guest wrote since the one before,
 * until the pause would be short enough; then the guest's memory, with the rounds going on beside
 * it. */
#ifndef FERRY_AGENT_MIGRATE_CONVERGE_H
#define FERRY_AGENT_MIGRATE_CONVERGE_H

#include "agent/migrate/live.h"

/* 0: the guest is stopped at the switch: QEMU waits, the watchdog is armed. Else it runs. */
int converge_run(struct migration *migration, struct peer *peer, struct fault *fault);

#endif
