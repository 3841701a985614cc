/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/verify.h"

#include "agent/copy/digest.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define CALL_TIMEOUT_USEC (120 * UINT64_C(1000000)) /* a span is 1 GiB, perhaps on a slow disk */

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

static int verify_span(struct migration *m, struct peer *peer, unsigned disk, uint64_t size_bytes,
	uint64_t span, uint64_t *differ, struct fault *fault)
{
	unsigned char here[DIGEST_SPAN_BYTES] = {0};
	unsigned char there[DIGEST_SPAN_BYTES];
	struct extent extents[DIGEST_SPAN_CHUNKS];
	size_t n = 0;

	int r = digest_load(
		m->params->storage->agent, m->uuid, disk, span, here, sizeof(here), fault);
	if (r >= 0)
		r = ask_digests(m, peer, disk, span, there, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < DIGEST_SPAN_CHUNKS; i++) {
		uint64_t offset = span * DIGEST_SPAN + i * DIGEST_CHUNK;
		if (memcmp(here + i * DIGEST_BYTES, there + i * DIGEST_BYTES, DIGEST_BYTES) == 0)
			continue;
		log_error("MIG-DIFFERENCE", "migration=%s disk=%u offset=%llu", m->uuid, disk,
			(unsigned long long)offset);
		extents[n++] = (struct extent){
			.offset = offset, .length = MIN(DIGEST_CHUNK, size_bytes - offset)};
	}
	*differ += n;
	if (n == 0)
		return 0;
	return extent_log_add(m->params->storage->agent, m->uuid, disk, extents, n, fault);
}

int verify_disk(struct migration *m, struct peer *peer, unsigned disk, uint64_t size_bytes,
	uint64_t *ret_differ, struct fault *fault)
{
	uint64_t differ = 0;

	for (uint64_t span = 0; span < digest_n_spans(size_bytes); span++) {
		int r = verify_span(m, peer, disk, size_bytes, span, &differ, fault);
		if (r < 0)
			return r;
	}
	*ret_differ = differ;
	return 0;
}
