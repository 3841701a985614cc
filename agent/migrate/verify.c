/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/verify.h"

#include "agent/copy/digest.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define CALL_TIMEOUT_USEC    (120 * USEC_PER_SEC) /* a span is 1 GiB, perhaps on a slow disk */
#define EXTENTS_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define LOOK_USEC            (200 * USEC_PER_MSEC)

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "" stands for zeros. */
static int parse_digests(const char *text, unsigned char digests[DIGEST_SPAN_BYTES])
{
	memset(digests, 0, DIGEST_SPAN_BYTES);
	if (!*text)
		return 0;
	if (strlen(text) != DIGEST_SPAN_BYTES * 2)
		return -EBADMSG;
	for (size_t i = 0; i < DIGEST_SPAN_BYTES; i++) {
		int high = hex_digit(text[2 * i]);
		int low = hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EBADMSG;
		digests[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

static int ask_digests(struct migration *m, struct peer *peer, unsigned disk, uint64_t span,
	unsigned char digests[DIGEST_SPAN_BYTES], struct fault *fault)
{
	struct value *args CLEANUP_VALUE = value_new_array();
	struct value *result CLEANUP_VALUE = NULL;

	value_append(args, value_new_int(disk));
	value_append(args, value_new_int((int64_t)span));
	int r = peer_call_patiently(peer, "digest", m->uuid, args, CALL_TIMEOUT_USEC,
		m->params->peer_timeout_usec, m->cancel, &result, fault);
	if (r < 0)
		return r;
	r = parse_digests(value_find_string(result, "digests", "?"), digests);
	if (r < 0)
		return fault_text(fault, r,
			"verify: the destination's answer about disk %u is not a list of digests",
			disk);
	return 0;
}

/* *ret_n extents (at most DIGEST_SPAN_CHUNKS) whose content is not the same on both sides. */
static int compare_span(struct migration *m, struct peer *peer, unsigned disk, uint64_t size_bytes,
	uint64_t span, struct extent *extents, size_t *ret_n, struct fault *fault)
{
	unsigned char here[DIGEST_SPAN_BYTES] = {0};
	unsigned char there[DIGEST_SPAN_BYTES];
	size_t n = 0;

	int r = digest_load(
		m->params->storage->agent, m->uuid, disk, span, here, sizeof(here), fault);
	if (r >= 0)
		r = ask_digests(m, peer, disk, span, there, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < DIGEST_SPAN_CHUNKS; i++) {
		uint64_t offset = span * DIGEST_SPAN + i * DIGEST_CHUNK;
		/* Whatever the destination says of what is not there. */
		if (offset >= size_bytes)
			break;
		if (memcmp(here + i * DIGEST_BYTES, there + i * DIGEST_BYTES, DIGEST_BYTES) == 0)
			continue;
		log_error("MIG-DIFFERENCE", "migration=%s disk=%u offset=%llu", m->uuid, disk,
			(unsigned long long)offset);
		extents[n++] = (struct extent){
			.offset = offset, .length = MIN(DIGEST_CHUNK, size_bytes - offset)};
	}
	*ret_n = n;
	return 0;
}

int verify_disk(struct migration *m, struct peer *peer, unsigned disk, uint64_t size_bytes,
	uint64_t from, uint64_t *ret_differ, struct fault *fault)
{
	struct extent extents[DIGEST_SPAN_CHUNKS];
	uint64_t differ = 0;

	for (uint64_t span = from; span < digest_n_spans(size_bytes); span++) {
		size_t n = 0;
		int r = compare_span(m, peer, disk, size_bytes, span, extents, &n, fault);
		if (r == 0 && n)
			r = extent_log_add(
				m->params->storage->agent, m->uuid, disk, extents, n, fault);
		if (r < 0)
			return r;
		differ += n;
	}
	*ret_differ = differ;
	return 0;
}

/* --- Extents ------------------------------------------------------------------------------------
 */

static char *format_extents(const struct extent *extents, size_t n)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < n; i++)
		buf_printf(&text, "%s%" PRIu64 " %" PRIu64, i ? " " : "", extents[i].offset,
			extents[i].length);
	return buf_take_string(&text);
}

static bool is_digest(const char *hex, const unsigned char *digest)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < DIGEST_BYTES; i++)
		if (hex[2 * i] != digits[digest[i] >> 4] ||
			hex[2 * i + 1] != digits[digest[i] & 15])
			return false;
	return true;
}

int verify_extents(struct migration *m, struct peer *peer, unsigned disk,
	const struct extent *extents, size_t n, const unsigned char *digests, bool *ret_differs,
	struct fault *fault)
{
	char *text CLEANUP_FREE = format_extents(extents, n);
	struct value *args CLEANUP_VALUE = value_new_array();
	struct value *result CLEANUP_VALUE = NULL;

	value_append(args, value_new_int(disk));
	value_append_string(args, text);
	int r = peer_call_patiently(peer, "digest_extents", m->uuid, args, EXTENTS_TIMEOUT_USEC,
		m->params->peer_timeout_usec, m->cancel, &result, fault);
	if (r < 0)
		return r;
	const char *there = value_find_string(result, "digests", "");
	if (strlen(there) != n * DIGEST_BYTES * 2)
		return fault_text(fault, -EBADMSG,
			"verify: the destination's answer about disk %u is not a list of %zu "
			"digests",
			disk, n);
	for (size_t i = 0; i < n; i++)
		ret_differs[i] =
			!is_digest(there + i * DIGEST_BYTES * 2, digests + i * DIGEST_BYTES);
	return 0;
}

/* --- Behind the copy ----------------------------------------------------------------------------
 */

struct verifier {
	struct migration *migration;
	unsigned disk;
	uint64_t size_bytes;
	struct cancel *end;
	pthread_t thread;
	uint64_t n_equal; /* the thread's until it is joined */
};

/* Whether the log holds nothing of the span nor of what is below it. */
static bool is_sent(const struct verifier *verifier, uint64_t span)
{
	struct extent first;
	size_t n = 0;

	if (extent_log_read(verifier->migration->params->storage->agent, verifier->migration->uuid,
		    verifier->disk, 0, &first, 1, &n, NULL) < 0)
		return false;
	return n == 0 || first.offset >= (span + 1) * DIGEST_SPAN;
}

static void *verifier_main(void *arg)
{
	struct verifier *verifier = arg;
	struct migration *m = verifier->migration;
	struct peer *peer CLEANUP_PEER = peer_of(m);
	uint64_t n_spans = digest_n_spans(verifier->size_bytes);

	while (verifier->n_equal < n_spans) {
		struct extent extents[DIGEST_SPAN_CHUNKS];
		size_t n = 0;
		if (!is_sent(verifier, verifier->n_equal)) {
			if (cancel_sleep(verifier->end, LOOK_USEC) < 0)
				break;
			continue;
		}
		if (cancel_is_requested(verifier->end) ||
			compare_span(m, peer, verifier->disk, verifier->size_bytes,
				verifier->n_equal, extents, &n, NULL) < 0 ||
			n)
			break;
		verifier->n_equal++;
	}
	return NULL;
}

int verifier_start(struct migration *m, unsigned disk, uint64_t size_bytes,
	struct verifier **ret_verifier, struct fault *fault)
{
	struct verifier *verifier = xcalloc(1, sizeof(*verifier));

	*verifier = (struct verifier){
		.migration = m, .disk = disk, .size_bytes = size_bytes, .end = cancel_new()};
	int r = -pthread_create(&verifier->thread, NULL, verifier_main, verifier);
	if (r < 0) {
		cancel_free(verifier->end);
		free(verifier);
		return fault_errno(fault, r, "starting the thread that compares disk %u", disk);
	}
	*ret_verifier = verifier;
	return 0;
}

uint64_t verifier_stop(struct verifier *verifier)
{
	if (!verifier)
		return 0;
	cancel_request(verifier->end, "the copy has ended");
	pthread_join(verifier->thread, NULL);
	uint64_t n_equal = verifier->n_equal;
	cancel_free(verifier->end);
	free(verifier);
	return n_equal;
}
