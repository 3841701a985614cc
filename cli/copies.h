/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry vm clone`, `copy`, `snapshot` and `revert`, `ferry vdi clone`, `copy` and `snapshot`. */
#ifndef FERRY_CLI_COPIES_H
#define FERRY_CLI_COPIES_H

#include "cli/context.h"

#define N_VM_COPY_OPTIONS 1
extern const struct option vm_copy_options[N_VM_COPY_OPTIONS];

int vm_clone(struct context *context, struct fault *fault);
int vm_copy(struct context *context, struct fault *fault);
int vm_snapshot(struct context *context, struct fault *fault);
int vm_revert(struct context *context, struct fault *fault);
int vdi_clone(struct context *context, struct fault *fault);
int vdi_copy(struct context *context, struct fault *fault);
int vdi_snapshot(struct context *context, struct fault *fault);

#endif
