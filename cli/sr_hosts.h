/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry sr attach` and `ferry sr detach`. */
#ifndef FERRY_CLI_SR_HOSTS_H
#define FERRY_CLI_SR_HOSTS_H

#include "base/fault.h"
#include "cli/context.h"

int sr_attach(struct context *context, struct fault *fault);
int sr_detach(struct context *context, struct fault *fault);

#endif
