/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a source that has bad sectors, for a move that is to go on all the same.
 *
 * A request that fails is read again piece by piece: pages of 4 KiB, and each sector of a page that
 * fails by itself, past the page cache (which knows whole pages only) where the source is a file. A
 * sector that fails alone counts as zeros, for what is sent as for its digest, so both sides agree
 * on it. It is stored in agent.db before the caller has the data. When it can be read later (the
 * guest wrote it anew), and is sent, it is taken out again.
 *
 * One for each disk; the threads of its copy share it. */
#ifndef FERRY_AGENT_COPY_SALVAGE_H
#define FERRY_AGENT_COPY_SALVAGE_H

#include "agent/copy/endpoint.h"
#include "schema/agent_db.h"

/* Of a disk. With more it fails: that is no bad sector, that is a dead disk. */
#define SALVAGE_MAX_RANGES 1024
#define SALVAGE_MAX_BYTES  (UINT64_C(16) << 20)
/* Spent in reads of requests that failed, by this run of the agent: a bad sector may take seconds.
 */
#define SALVAGE_MAX_USEC (600 * USEC_PER_SEC)

struct salvage;

/* db is borrowed. Goes on with what is stored of the disk. */
int salvage_open(struct agent_db *db, const char *migration, unsigned disk,
	struct salvage **ret_salvage, struct fault *fault);
struct salvage *salvage_free(struct salvage *salvage);

/* How the caller reads. */
struct salvage_source {
	const struct endpoint_spec *spec; /* what source was opened with */
	struct endpoint *source;
	struct cancel *cancel;
	/* What is read will be at the destination: it is sent, or compared before the end. Then
	 * what can be read of what was lost before is lost no more. */
	bool sends;
	/* Called now and then while it lasts, to keep a session with the target alive; NULL: there
	 * is none. An error ends the reading. */
	int (*idle)(void *arg, struct fault *fault);
	void *arg;
};

/* As endpoint_read. What cannot be read is zero in data then, and stored. salvage NULL: it fails,
 * as -EIO also does when there is too much of it. */
int salvage_read(struct salvage *salvage, const struct salvage_source *from, struct extent extent,
	void *data, struct fault *fault);
/* After such a read failed with that error, with nothing in flight: reads what can be read. Any
 * error but -EIO, and a file that has another size now, is handed on. */
int salvage_again(struct salvage *salvage, const struct salvage_source *from, struct extent extent,
	void *data, int error, struct fault *fault);
/* The extent could be read, as data or as a hole, and will be at the destination. Costs nothing
 * while nothing is lost. salvage NULL is fine. */
int salvage_is_read(struct salvage *salvage, struct extent extent, struct fault *fault);

DEFINE_CLEANUP(struct salvage *, salvage_free)
#define CLEANUP_SALVAGE CLEANUP(cleanup_salvage_free)

#endif
