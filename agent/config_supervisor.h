/* SPDX-License-Identifier: Apache-2.0 */
/* What the configuration says of migrations. */
#ifndef FERRY_AGENT_CONFIG_SUPERVISOR_H
#define FERRY_AGENT_CONFIG_SUPERVISOR_H

#include "agent/config.h"
#include "agent/migrate/supervisor.h"

/* Sets what comes from it, and leaves the rest. Its texts are borrowed. */
void config_for_supervisor(const struct config *config, struct supervisor_params *params);

#endif
