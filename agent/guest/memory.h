/* SPDX-License-Identifier: Apache-2.0 */
/* The move of a guest's memory from one QEMU to another (QEMU: qapi/migration.json), with
 * pause-before-switchover, return-path and events.
 *
 * memory_cancel is refused from `device` on: there QEMU must not be told to cancel, as both sides
 * could run. A destination is started with -incoming defer and -S, so that it runs only when told
 * to. Commands block up to 5 s each. */
#ifndef FERRY_AGENT_GUEST_MEMORY_H
#define FERRY_AGENT_GUEST_MEMORY_H

#include "agent/guest/guest.h"
#include "base/cancel.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

enum memory_status {
	MEMORY_NONE,
	MEMORY_ACTIVE,         /* setup and active: the guest runs */
	MEMORY_PRE_SWITCHOVER, /* the guest is stopped, its disks are flushed; QEMU waits */
	MEMORY_DEVICE,         /* after memory_continue */
	MEMORY_COMPLETED,
	MEMORY_FAILED, /* QEMU has resumed the guest at the source, if it ran */
	MEMORY_CANCELLING,
	MEMORY_CANCELLED,
};

struct memory_progress {
	enum memory_status status;
	uint64_t total_bytes;     /* of the guest's RAM */
	uint64_t remaining_bytes; /* of this pass */
	uint64_t transferred_bytes;
	uint64_t dirty_bytes_per_sec;
	uint64_t rate_bytes_per_sec;
	uint64_t expected_downtime_usec; /* QEMU's own guess; 0: none */
	unsigned n_passes;
	char error[256]; /* QEMU's words when it failed; else "" */
};

struct memory_params {
	const char *uri;              /* "unix:/path" */
	uint64_t max_bytes_per_sec;   /* 0: no limit */
	uint64_t downtime_limit_usec; /* in whole milliseconds, at least one */
};

/* Whether this QEMU has given its guest away. One that took a guest in says "completed" too, for as
 * long as it does not begin a move itself, but without figures of memory. */
bool memory_is_handed_over(const struct memory_progress *progress);

/* Destination: capabilities, then migrate-incoming. */
int memory_listen(struct guest *guest, const char *uri, struct fault *fault);
/* Source: capabilities, parameters, migrate. Whether the destination can be reached shows later. */
int memory_start(struct guest *guest, const struct memory_params *params, struct fault *fault);
int memory_query(struct guest *guest, struct memory_progress *ret_progress, struct fault *fault);
/* While it is active: other limits. */
int memory_set_limits(struct guest *guest, uint64_t max_bytes_per_sec, uint64_t downtime_limit_usec,
	struct fault *fault);
/* Until the status is none of `while_status` (a set of 1 << status), by events, with a look once a
 * second: 0 with what it is then, -ETIMEDOUT, -ECANCELED, -ECONNRESET (the guest is gone).
 * Readable wake_fd (-1: none) ends the wait too: 0. */
int memory_await(struct guest *guest, struct guest_watch *watch, unsigned while_status, int wake_fd,
	uint64_t deadline_usec, const struct cancel *cancel, struct memory_progress *ret_progress,
	struct fault *fault);
/* Source, at pre-switchover: from here on QEMU hands over. Returns once it is on its way, within a
 * second or two if the other side hangs. -ETIMEDOUT: it may have been continued, or will be. */
int memory_continue(struct guest *guest, struct fault *fault);
/* Source: ends a move that has not been continued, and waits (5 s) until the guest runs again if it
 * ran before. 0 also when nothing was under way, the guest was taken back after its hand over, or
 * it has failed; -EBUSY: it has been continued. */
int memory_cancel(struct guest *guest, struct fault *fault);
/* Source, after memory_continue, when the monitor no longer answers because the other side hangs:
 * cuts the stream out of band, so that it fails here and the guest resumes. Only when the
 * destination will never be told to run. */
int memory_yank(struct guest *guest, struct fault *fault);

const char *memory_status_name(enum memory_status status); /* as QEMU has it: "pre-switchover" */

#endif
