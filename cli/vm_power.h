/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry vm start`, `shutdown`, `reboot`, `pause` and `unpause`: the life of a VM's guest. */
#ifndef FERRY_CLI_VM_POWER_H
#define FERRY_CLI_VM_POWER_H

#include "cli/context.h"

#define N_VM_START_OPTIONS 1
extern const struct option vm_start_options[N_VM_START_OPTIONS];
#define N_VM_END_OPTIONS 1
extern const struct option vm_end_options[N_VM_END_OPTIONS]; /* of shutdown and reboot */

int vm_start(struct context *context, struct fault *fault);
int vm_shutdown(struct context *context, struct fault *fault);
int vm_reboot(struct context *context, struct fault *fault);
int vm_pause(struct context *context, struct fault *fault);
int vm_unpause(struct context *context, struct fault *fault);

#endif
