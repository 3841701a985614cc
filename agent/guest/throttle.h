/* SPDX-License-Identifier: Apache-2.0 */
/* Slowing a guest's writes (QMP block_set_io_throttle), never beyond what it had: the limits that
 * were set before are read first, and put back. */
#ifndef FERRY_AGENT_GUEST_THROTTLE_H
#define FERRY_AGENT_GUEST_THROTTLE_H

#include "agent/guest/guest.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdint.h>

/* The limits of all disks as they are, to be stored before the first throttle_set. */
int throttle_read(struct guest *guest, struct value **ret_limits, struct fault *fault);
/* Bytes a second that each writable disk may write; other limits stay as in `limits`, a lower
 * bps_wr of the operator's stays. No bursts. */
int throttle_set(struct guest *guest, const struct value *limits, uint64_t bytes_per_sec,
	struct fault *fault);
/* Back to `limits`. */
int throttle_restore(struct guest *guest, const struct value *limits, struct fault *fault);

#endif
