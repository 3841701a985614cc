/* SPDX-License-Identifier: Apache-2.0 */
/* Beside what a sender does: a thread that reports progress once a second and asks after the peer,
 * whose word that it gave up cancels the migration. */
#ifndef FERRY_AGENT_MIGRATE_PULSE_H
#define FERRY_AGENT_MIGRATE_PULSE_H

#include "agent/migrate/migration.h"

struct pulse;

int pulse_start(struct migration *migration, struct pulse **ret_pulse, struct fault *fault);
/* Reports once more and ends. NULL is fine. Blocks for a call to the peer that is under way. */
struct pulse *pulse_stop(struct pulse *pulse);

DEFINE_CLEANUP(struct pulse *, pulse_stop)
#define CLEANUP_PULSE CLEANUP(cleanup_pulse_stop)

#endif
