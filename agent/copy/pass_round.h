/* SPDX-License-Identifier: Apache-2.0 */
/* What the thread of a pass does: one round over the extent log, a flush, waiting between them.
 * Belongs to that thread; seen by pass.c only. Errors are copy_run's; after one, only
 * pass_round_free is of use. */
#ifndef FERRY_AGENT_COPY_PASS_ROUND_H
#define FERRY_AGENT_COPY_PASS_ROUND_H

#include "agent/copy/pass.h"

struct pass_round;

/* Opens the source and logs in. params and stop are borrowed. */
int pass_round_open(const struct pass_params *params, struct cancel *stop,
	struct pass_round **ret_round, struct fault *fault);
/* Logs out. NULL is fine. */
struct pass_round *pass_round_free(struct pass_round *round);

/* Copies what the log has. The result is set after a failure too. */
int pass_round_run(struct pass_round *round, struct pass_result *ret_result, struct fault *fault);
int pass_round_flush(struct pass_round *round, struct fault *fault);
/* Keeps the session alive until wake_fd is readable. */
int pass_round_idle(struct pass_round *round, int wake_fd, struct fault *fault);

DEFINE_CLEANUP(struct pass_round *, pass_round_free)
#define CLEANUP_PASS_ROUND CLEANUP(cleanup_pass_round_free)

#endif
