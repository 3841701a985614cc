/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration changes in its pool's database is at another host of the pool too before anybody
 * builds on it: the receiver's commit before the sender hears of it, the sender's farewell before
 * its task ends. A pool whose other hosts do not answer keeps nobody waiting: that is said in the
 * log and in the `migration` object, in the document "exposed" (why; "" when it is not). */
#ifndef FERRY_AGENT_MIGRATE_SAFEGUARD_H
#define FERRY_AGENT_MIGRATE_SAFEGUARD_H

#include "agent/migrate/migration.h"

/* 0: it is there, or there is no other host, or none has said so in time and that is noted.
 * -ESTALE, -ECANCELED with a fault: nobody may build on it. Blocks for some seconds at most. */
int safeguard_run(struct migration *migration, struct fault *fault);
/* Whether none has said so. */
bool safeguard_is_exposed(struct migration *migration);
/* For one that is: asks again, if it was not asked lately. */
void safeguard_try_again(struct migration *migration);

#endif
