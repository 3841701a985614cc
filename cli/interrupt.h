/* SPDX-License-Identifier: Apache-2.0 */
/* Ctrl-C (and SIGTERM) as cancel tokens: the first signal requests the first token, the second one
 * the second. Who waits chooses which of them ends the wait. */
#ifndef FERRY_CLI_INTERRUPT_H
#define FERRY_CLI_INTERRUPT_H

#include "base/cancel.h"
#include "base/fault.h"

/* Once, before any other thread starts. The tokens live as long as the program. */
int interrupt_start(struct fault *fault);
struct cancel *interrupt_first(void);
struct cancel *interrupt_second(void);

#endif
