/* SPDX-License-Identifier: Apache-2.0 */
/* Copies one disk until its extent log is empty. */
#ifndef FERRY_AGENT_COPY_COPIER_H
#define FERRY_AGENT_COPY_COPIER_H

#include "agent/copy/endpoint.h"
#include "agent/copy/rate.h"
#include "agent/copy/salvage.h"
#include "base/cancel.h"
#include "base/fault.h"
#include "schema/agent_db.h"

#include <stdbool.h>
#include <stdint.h>

/* Counters that others may read while the copy runs (relaxed atomics), all in bytes. They only
 * grow. */
struct copy_progress {
	_Atomic uint64_t
		log_initial;       /* in the log when copying began (set once, by the first run) */
	_Atomic uint64_t log_done; /* taken from the log: sent, zero or hole */
	_Atomic uint64_t read;     /* read from the source */
	_Atomic uint64_t sent;     /* written to the target, with what was sent again */
	_Atomic uint64_t skipped_zero; /* zeros found by scanning and not sent */
	_Atomic uint64_t skipped_hole; /* holes of the source, not read */
	_Atomic uint64_t compared;     /* by digest before they were sent (compare.h) */
	_Atomic uint64_t same;         /* of those: the target had them, so they were not sent */
};

struct copy_params {
	struct agent_db *db;
	const char *migration;
	unsigned disk; /* number in the plan: key of the extent log and of the digests */
	struct endpoint_spec source;
	struct endpoint_spec target;
	/* Known to read as zeros where never written, and whatever was written was read from this
	 * source, unchanged since: zeros and holes are not sent. */
	bool target_fresh;
	unsigned n_sessions;     /* target sessions, each with a thread of its own; 0: default */
	size_t request_bytes;    /* a multiple of 4096, at most 1 MiB; 0: default */
	size_t in_flight_bytes;  /* per disk, over all sessions; 0: default */
	struct rate_limit *rate; /* shared; NULL: none */
	struct copy_progress *progress; /* may be NULL */
	struct salvage *salvage; /* what cannot be read is zeros; NULL: then the copy fails */
	struct cancel *cancel;
};

/* What 0 stands for in copy_params; measured, see docs/performance.md. */
#define COPY_DEFAULT_SESSIONS  2
#define COPY_DEFAULT_REQUEST   ((size_t)256 << 10)
#define COPY_DEFAULT_IN_FLIGHT ((size_t)4 << 20)
#define COPY_MAX_SESSIONS      16

/* Takes extents from the log, reads, hashes, sends what is not zero; flushes the target every few
 * hundred MiB and at the end, and only then removes from the log what was sent before the flush,
 * storing the digests of the chunks it touched (agent/copy/digest.h) in the same step. A run that
 * ends early loses nothing: the next one continues from the log. Memory use does not depend on the
 * disk's size. Nobody else may change the disk's log meanwhile.
 *
 * 0: the log was found empty after the last flush. Blocks; -ECANCELED within 1 s of a cancel.
 * -ECONNRESET, -ETIMEDOUT, -ESTALE, -EACCES, -ECONNREFUSED: the target's session was lost or
 * refused: call again with a renewed export. -EREMOTEIO: the target failed a write or flush (disk
 * full, medium error). -EIO: the source cannot be read (the fault says path, offset, errno).
 * Others: as they are. */
int copy_run(const struct copy_params *params, struct fault *fault);

#endif
