/* SPDX-License-Identifier: Apache-2.0 */
/* What an error cannot say, as its parameters are fixed by contract: what state the VM is in now,
 * and what to do next. */
#ifndef FERRY_AGENT_MIGRATE_OUTCOME_H
#define FERRY_AGENT_MIGRATE_OUTCOME_H

#include "agent/migrate/migration.h"

/* Of a migration that has ended, or is being undone; "" of any other. The caller frees it. */
char *outcome_text(struct migration *migration);

#endif
