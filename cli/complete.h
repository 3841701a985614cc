/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry __complete N WORD...`: what may stand as word N (from 1) of the command line, one
 * candidate a line. The shell's completion asks it, so that there is no second list. */
#ifndef FERRY_CLI_COMPLETE_H
#define FERRY_CLI_COMPLETE_H

#include "base/buf.h"

/* argv: what follows "__complete". Never asks and never fails: what cannot be known is left out. */
void complete(int argc, char *const *argv, struct buf *out);

#endif
