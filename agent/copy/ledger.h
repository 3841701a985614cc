/* SPDX-License-Identifier: Apache-2.0 */
/* What the target has acknowledged and not yet flushed, of one run of the copier.
 *
 * An extent leaves the log only after its data was acknowledged and a flush after that succeeded
 * (law 4 of docs/architecture.md). Chunks are entered here when their last request was
 * acknowledged. A checkpoint takes what is entered at that moment, flushes, and removes exactly
 * that from the log, in one transaction with the digests. Threads go on copying meanwhile: what
 * they enter during the flush waits for the next one. The ledger is bounded, in chunks and in
 * bytes: so is what must be sent again after a loss. */
#ifndef FERRY_AGENT_COPY_LEDGER_H
#define FERRY_AGENT_COPY_LEDGER_H

#include "agent/copy/copier.h"
#include "agent/copy/digest.h"
#include "base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_MAX_CHUNKS 1024
/* A checkpoint is due after so much was sent, or chunks entered, or time. */
#define LEDGER_DUE_BYTES  (UINT64_C(256) << 20)
#define LEDGER_DUE_CHUNKS (LEDGER_MAX_CHUNKS / 2)
#define LEDGER_DUE_USEC   (2 * USEC_PER_SEC)
/* No new chunk is begun while so much is acknowledged and not flushed. */
#define LEDGER_MAX_BYTES (2 * LEDGER_DUE_BYTES)

struct ledger_entry {
	uint64_t number; /* of the chunk */
	unsigned char digest[DIGEST_BYTES];
	uint64_t log_bytes;  /* leave the log with it */
	uint64_t sent_bytes; /* were written for it */
};

struct ledger;

/* params is borrowed. n_threads: how many wait for room. */
struct ledger *ledger_new(
	const struct copy_params *params, uint64_t size_bytes, unsigned n_threads);
struct ledger *ledger_free(struct ledger *ledger);

/* Room for one chunk that is about to be begun: entered or given back later. False: wait for
 * ledger_wake_fd or do a checkpoint. */
bool ledger_reserve(struct ledger *ledger);
void ledger_unreserve(struct ledger *ledger);
/* All of the chunk was acknowledged. Uses up a reservation. */
void ledger_enter(struct ledger *ledger, const struct ledger_entry *entry);

enum ledger_begin { LEDGER_IF_DUE, LEDGER_AT_END };
/* True: the caller now has to flush the target and then call ledger_commit, or end the run. Only
 * one thread at a time gets it. LEDGER_AT_END: whenever something is entered. */
bool ledger_begin_checkpoint(struct ledger *ledger, enum ledger_begin when);
/* After the flush succeeded. Blocks on the database. */
int ledger_commit(struct ledger *ledger, struct fault *fault);

/* Readable after a checkpoint; a thread reads its own. */
int ledger_wake_fd(const struct ledger *ledger, unsigned thread);

DEFINE_CLEANUP(struct ledger *, ledger_free)
#define CLEANUP_LEDGER CLEANUP(cleanup_ledger_free)

#endif
