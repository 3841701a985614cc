/* SPDX-License-Identifier: Apache-2.0 */
/* What export.c and tgt.c share. Not for other layers. */
#ifndef FERRY_TARGET_TGT_INTERNAL_H
#define FERRY_TARGET_TGT_INTERNAL_H

#include "base/buf.h"
#include "base/fault.h"
#include "target/tgt.h"
#include "target/tgt_mgmt.h"

#include <stdint.h>

/* Within which a healthy tgtd answers; it needs 0.1 ms. */
#define TGT_ANSWER_USEC (2 * UINT64_C(1000000))

/* tgt_mgmt_call to this process within TGT_ANSWER_USEC and deadline_usec, whichever is first. */
int tgt_ask(struct tgt *tgt, const struct tgt_request *request, uint64_t deadline_usec,
	struct buf *ret_text);

/* Makes tid used for the life of this tgtd; -EEXIST when it was. */
int tgt_claim_tid(struct tgt *tgt, uint32_t tid);

/* Whether the process has ended, so that nothing of it can write any more. tgt_is_lost may be true
 * before, when it hangs in the kernel after SIGKILL. */
bool tgt_is_dead(struct tgt *tgt);

/* SIGKILL, and waits for its end: 0 when it is dead, so that nothing of it can write any more;
 * -ETIMEDOUT when it hangs in the kernel. The reason is told to `lost`. */
int tgt_kill(struct tgt *tgt, const char *reason, uint64_t deadline_usec);

#endif
