/* SPDX-License-Identifier: Apache-2.0 */
/* That what the pool's database holds now is at another host of the pool too: it would survive the
 * loss of the coordinator. At a member that is its own copy; at the coordinator the members that
 * are heard of fetch one at once, and the first that has it is enough. May be used by any number of
 * threads. */
#ifndef FERRY_AGENT_POOL_WITNESS_H
#define FERRY_AGENT_POOL_WITNESS_H

#include "agent/pool/link.h"
#include "agent/pool/roster.h"
#include "base/cancel.h"
#include "base/fault.h"

/* How long a witness is waited for. */
#define WITNESS_USEC (UINT64_C(3) * 1000000)

struct witness;

/* It does not know yet which of the two this host is: who asks waits for that. */
struct witness *witness_new(void);
/* NULL is fine; returns NULL. */
struct witness *witness_free(struct witness *witness);

/* This host is a member. Both are borrowed for the witness's life. */
void witness_of_member(struct witness *witness, struct link *link, const char *state_dir);
/* This host is the coordinator. NULL, before the roster goes: asks nobody any more; blocks for
 * those that are being asked. */
void witness_of_coordinator(struct witness *witness, struct roster *roster);

/* All that was committed before the call: 1, it is at another host; 0, the pool has no other host.
 * -ESTALE: another host coordinates the pool by now, and does not have it. Any other failure: no
 * host has said that it has it. Blocks for WITNESS_USEC at most. */
int witness_ask(struct witness *witness, struct cancel *cancel, struct fault *fault);

DEFINE_CLEANUP(struct witness *, witness_free)
#define CLEANUP_WITNESS CLEANUP(cleanup_witness_free)

#endif
