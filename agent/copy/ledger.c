/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/ledger.h"

#include "agent/copy/zero.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

struct page {
	size_t n;
	struct ledger_entry entries[LEDGER_MAX_CHUNKS];
};

struct ledger {
	const struct copy_params *params;
	uint64_t size_bytes;
	unsigned n_threads;
	int *wake_fds;
	pthread_mutex_t lock; /* protects all below, but what `taken` points to during a commit */
	struct page *open;    /* being entered */
	struct page *taken;   /* being flushed */
	bool committing;
	size_t n_reserved;
	uint64_t open_bytes, taken_bytes; /* sent for the entries of the pages */
	uint64_t last_usec;               /* when the last checkpoint ended */
};

struct ledger *ledger_new(const struct copy_params *params, uint64_t size_bytes, unsigned n_threads)
{
	struct ledger *ledger = xcalloc(1, sizeof(*ledger));

	ledger->params = params;
	ledger->size_bytes = size_bytes;
	ledger->n_threads = n_threads;
	ledger->wake_fds = xcalloc(n_threads, sizeof(*ledger->wake_fds));
	for (unsigned i = 0; i < n_threads; i++) {
		ledger->wake_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert(ledger->wake_fds[i] >= 0);
	}
	pthread_mutex_init(&ledger->lock, NULL);
	ledger->open = xcalloc(1, sizeof(*ledger->open));
	ledger->taken = xcalloc(1, sizeof(*ledger->taken));
	ledger->last_usec = clock_now_usec();
	return ledger;
}

struct ledger *ledger_free(struct ledger *ledger)
{
	if (!ledger)
		return NULL;
	for (unsigned i = 0; i < ledger->n_threads; i++)
		close(ledger->wake_fds[i]);
	pthread_mutex_destroy(&ledger->lock);
	free(ledger->wake_fds);
	free(ledger->open);
	free(ledger->taken);
	free(ledger);
	return NULL;
}

int ledger_wake_fd(const struct ledger *ledger, unsigned thread)
{
	return ledger->wake_fds[thread];
}

bool ledger_reserve(struct ledger *ledger)
{
	SCOPE_LOCK(&ledger->lock);
	if (ledger->open->n + ledger->taken->n + ledger->n_reserved >= LEDGER_MAX_CHUNKS ||
		ledger->open_bytes + ledger->taken_bytes >= LEDGER_MAX_BYTES)
		return false;
	ledger->n_reserved++;
	return true;
}

void ledger_unreserve(struct ledger *ledger)
{
	SCOPE_LOCK(&ledger->lock);
	ledger->n_reserved--;
}

void ledger_enter(struct ledger *ledger, const struct ledger_entry *entry)
{
	SCOPE_LOCK(&ledger->lock);
	assert(ledger->n_reserved && ledger->open->n < LEDGER_MAX_CHUNKS);
	ledger->n_reserved--;
	ledger->open->entries[ledger->open->n++] = *entry;
	ledger->open_bytes += entry->sent_bytes;
}

static bool is_due(const struct ledger *ledger)
{
	return ledger->open_bytes >= LEDGER_DUE_BYTES || ledger->open->n >= LEDGER_DUE_CHUNKS ||
	       clock_now_usec() - ledger->last_usec >= LEDGER_DUE_USEC;
}

bool ledger_begin_checkpoint(struct ledger *ledger, enum ledger_begin when)
{
	SCOPE_LOCK(&ledger->lock);
	if (ledger->committing || ledger->open->n == 0 ||
		(when == LEDGER_IF_DUE && !is_due(ledger)))
		return false;
	struct page *empty = ledger->taken;
	ledger->taken = ledger->open;
	ledger->taken_bytes = ledger->open_bytes;
	ledger->open = empty;
	ledger->open_bytes = 0;
	ledger->committing = true;
	return true;
}

static int by_number(const void *a, const void *b)
{
	const struct ledger_entry *left = a, *right = b;

	return (left->number > right->number) - (left->number < right->number);
}

/* Stores the digests of the entries of one span; *at is moved past them. */
static int store_span(
	const struct ledger *ledger, struct agent_db *db, size_t *at, struct fault *fault)
{
	const struct copy_params *params = ledger->params;
	const struct page *page = ledger->taken;
	uint64_t span = page->entries[*at].number / DIGEST_SPAN_CHUNKS;
	unsigned char digests[DIGEST_SPAN_BYTES] = {0};

	int found = digest_load(
		db, params->migration, params->disk, span, digests, sizeof(digests), fault);
	if (found < 0)
		return found;
	for (; *at < page->n && page->entries[*at].number / DIGEST_SPAN_CHUNKS == span; ++*at)
		memcpy(digests + page->entries[*at].number % DIGEST_SPAN_CHUNKS * DIGEST_BYTES,
			page->entries[*at].digest, DIGEST_BYTES);
	if (!found && zero_is_all(digests, sizeof(digests)))
		return 0; /* A span without a row is all zero. */
	return digest_store(
		db, params->migration, params->disk, span, digests, sizeof(digests), fault);
}

/* The chunks of the page as ranges of the disk, neighbours made one. Nothing is added to the log
 * while the copier runs, so all that it has within a chunk was claimed with the chunk. */
static size_t page_ranges(const struct ledger *ledger, struct extent *ranges)
{
	const struct page *page = ledger->taken;
	size_t n = 0;

	for (size_t i = 0; i < page->n; i++) {
		uint64_t offset = page->entries[i].number * DIGEST_CHUNK;
		uint64_t length = MIN(DIGEST_CHUNK, ledger->size_bytes - offset);
		if (n && ranges[n - 1].offset + ranges[n - 1].length == offset)
			ranges[n - 1].length += length;
		else
			ranges[n++] = (struct extent){offset, length};
	}
	return n;
}

static int store_page(struct agent_db *db, void *arg, struct fault *fault)
{
	const struct ledger *ledger = arg;
	const struct copy_params *params = ledger->params;
	struct extent *ranges CLEANUP_FREE = xcalloc(LEDGER_MAX_CHUNKS, sizeof(*ranges));

	for (size_t at = 0; at < ledger->taken->n;) {
		int r = store_span(ledger, db, &at, fault);
		if (r < 0)
			return r;
	}
	size_t n = page_ranges(ledger, ranges);
	return extent_log_remove(db, params->migration, params->disk, ranges, n, fault);
}

static void end_checkpoint(struct ledger *ledger)
{
	SCOPE_LOCK(&ledger->lock);
	ledger->taken->n = 0;
	ledger->taken_bytes = 0;
	ledger->committing = false;
	ledger->last_usec = clock_now_usec();
}

int ledger_commit(struct ledger *ledger, struct fault *fault)
{
	struct page *page = ledger->taken; /* Ours until end_checkpoint. */
	uint64_t log_bytes = 0;

	qsort(page->entries, page->n, sizeof(page->entries[0]), by_number);
	for (size_t i = 0; i < page->n; i++)
		log_bytes += page->entries[i].log_bytes;
	int r = agent_db_transaction(ledger->params->db, store_page, ledger, fault);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(
		&ledger->params->progress->log_done, log_bytes, memory_order_relaxed);
	end_checkpoint(ledger);
	for (unsigned i = 0; i < ledger->n_threads; i++) {
		ssize_t ignored = write(ledger->wake_fds[i], &(uint64_t){1}, sizeof(uint64_t));
		(void)ignored; /* A full counter is readable too. */
	}
	return 0;
}
