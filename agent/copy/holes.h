/* SPDX-License-Identifier: Apache-2.0 */
/* The source's large holes, before a copy into a target that is known to read as zeros. */
#ifndef FERRY_AGENT_COPY_HOLES_H
#define FERRY_AGENT_COPY_HOLES_H

#include "agent/copy/copier.h"

/* Takes chunks of which the source has nothing out of the log: nothing needs to be sent for them,
 * and without a digest they count as zeros. A disk of 1 TiB has 262144 chunks; the threads would
 * claim each, and enter it into a checkpoint. They meet, and skip, whatever this leaves: where it
 * meets data again and again it looks at every 64th chunk only. For a fresh target alone (see
 * target_fresh). -EIO: the source's map cannot be read; errors of the database, of the cancel. */
int holes_settle(const struct copy_params *params, struct endpoint *source, struct fault *fault);

#endif
