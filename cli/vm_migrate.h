/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry vm migrate`: the move of a VM to another pool. */
#ifndef FERRY_CLI_VM_MIGRATE_H
#define FERRY_CLI_VM_MIGRATE_H

#include "cli/context.h"

#define N_VM_MIGRATE_OPTIONS 12
extern const struct option vm_migrate_options[N_VM_MIGRATE_OPTIONS];

int vm_migrate(struct context *context, struct fault *fault);

#endif
