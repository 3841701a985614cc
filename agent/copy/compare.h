/* SPDX-License-Identifier: Apache-2.0 */
/* Takes out of a disk's extent log what the target holds already: both sides hash what they have,
 * and only digests travel. For a copy that goes on after a death, a lost session, or a source whose
 * changes nobody recorded. */
#ifndef FERRY_AGENT_COPY_COMPARE_H
#define FERRY_AGENT_COPY_COMPARE_H

#include "agent/copy/pass.h"

struct copy_compare_params {
	/* As for copy_run; progress counts `compared` and `same`. */
	const struct copy_params *copy;
	/* Asks the receiver: as for a pass, at most PASS_MAX_EXTENTS and PASS_MAX_BYTES at once. */
	pass_compare ask;
	void *arg;
	/* Pieces of 64 KiB leave the log by themselves. Only when whoever copies the rest does not
	 * hash a chunk together with parts of it that may have changed since: a source at rest, or
	 * passes. Otherwise whole chunks only. */
	bool by_piece;
	/* The whole log. Otherwise from its beginning on, as long as that finds something: a copy
	 * claims chunks in ascending order, so what it sent and did not flush lies there. */
	bool whole_log;
};

/* What is the same leaves the log after a flush of the target that came before the comparison (law
 * 4), with the digests of whole chunks stored as the copier stores them. Nobody else may change the
 * disk's log or write to the target meanwhile. Zeros that both have are taken out too and counted
 * nowhere. Blocks; sees copy->cancel. Errors as copy_run's, or those of ask. */
int copy_compare(const struct copy_compare_params *params, struct fault *fault);

#endif
