/* SPDX-License-Identifier: Apache-2.0 */
/* What a running guest writes, tracked by dirty bitmaps of its QEMU: generations, frozen on all
 * disks in one transaction, read through an NBD export of a null-co proxy node (a node in an
 * iothread must never be exported itself: QEMU 7.2 aborts), and forgotten only after the caller has
 * stored what they held. The state lives in QEMU, by the names of the bitmaps, so that it outlives
 * the agent and is found again.
 *
 * Every write since dirty_start is in the union of the generations acknowledged and the one that
 * records. An extent of a frozen generation is to be copied after its freeze. One thread at a time
 * may call. All block on QEMU, each command up to 5 s. -ECONNRESET, -ESRCH: the guest is gone.
 * -ESTALE: tracking is lost (see dirty_check): only a full comparison helps. */
#ifndef FERRY_AGENT_GUEST_DIRTY_H
#define FERRY_AGENT_GUEST_DIRTY_H

#include "agent/guest/guest.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "schema/types.h"

#include <stddef.h>
#include <stdint.h>

/* Of a bitmap, in bytes: with 64 KiB a guest that writes 4 KiB at random makes 16 times the traffic
 * and never converges on a slow link (docs/performance.md). */
#define DIRTY_GRANULARITY 4096

struct dirty;

struct dirty_disk {
	const char *node; /* "d0": the root node of the device */
	uint64_t size_bytes;
};

struct dirty_params {
	struct guest *guest; /* borrowed */
	const char *job;     /* names bitmaps, exports and nodes: [a-z0-9-], at most 40 */
	const struct dirty_disk *disks;
	size_t n_disks; /* may be 0: nothing is tracked, all calls succeed */
};

/* No I/O; copies what params point to. */
struct dirty *dirty_new(const struct dirty_params *params);
/* Frees; what is in QEMU stays. NULL is fine. */
struct dirty *dirty_free(struct dirty *dirty);

enum dirty_state {
	DIRTY_NONE, /* nothing of the job is in QEMU: who had started has lost what was tracked */
	DIRTY_RECORDING, /* one generation records */
	DIRTY_FROZEN, /* one records, the one before is frozen: to be read again and acknowledged */
	DIRTY_LOST,   /* some, inconsistent, or of another shape: dirty_stop, and begin anew */
};

/* Looks into QEMU, as after a restart of the agent; removes exports of the job that were left. */
int dirty_probe(struct dirty *dirty, enum dirty_state *ret_state, struct fault *fault);
/* From when it returns 0, what is written is recorded: to be called before the first read. Goes on
 * with what dirty_probe found; -ESTALE: DIRTY_LOST. */
int dirty_start(struct dirty *dirty, struct fault *fault);
/* The generation becomes immutable and a new one records: one point in time for all disks. If one
 * is frozen already, that one stays the frozen one. */
int dirty_freeze(struct dirty *dirty, struct fault *fault);
/* By what is known of QEMU, without asking it. */
bool dirty_is_frozen(const struct dirty *dirty);

/* Hands over the frozen generation's extents of one disk in batches, ascending. Negative: stop. */
typedef int (*dirty_take)(void *arg, const struct extent *extents, size_t n, struct fault *fault);
int dirty_read(struct dirty *dirty, size_t disk, dirty_take take, void *arg, struct fault *fault);
/* The same as one array, which the caller frees. */
int dirty_list(struct dirty *dirty, size_t disk, struct extent **ret_extents, size_t *ret_n,
	struct fault *fault);
/* What the frozen generation held is stored: forgets it. Fine when none is frozen. */
int dirty_acknowledge(struct dirty *dirty, struct fault *fault);
/* Bytes dirty in the recording generation of each disk; ret_bytes has n_disks places. */
int dirty_count(struct dirty *dirty, uint64_t *ret_bytes, struct fault *fault);
/* -ESTALE with a fault when tracking cannot be trusted: the device's root node is another (a
 * snapshot), a block job runs, a size changed, a bitmap is gone, inconsistent or does not record.
 */
int dirty_check(struct dirty *dirty, struct fault *fault);
/* Removes exports, bitmaps and proxy, in that order; the NBD server stays (stopping it can hang
 * QEMU). Idempotent; a guest that is gone is fine. */
int dirty_stop(struct dirty *dirty, struct fault *fault);

DEFINE_CLEANUP(struct dirty *, dirty_free)
#define CLEANUP_DIRTY CLEANUP(cleanup_dirty_free)

#endif
