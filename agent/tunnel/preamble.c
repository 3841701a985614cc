/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/tunnel/preamble.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

#define MAGIC   "FRTN"
#define VERSION 1

enum { AT_VERSION = 4, AT_NAME_LENGTH, AT_SECRET_LENGTH, HEAD_BYTES };

int preamble_check(const char *name, const char *secret, struct fault *fault)
{
	size_t name_length = strlen(name), secret_length = strlen(secret);

	if (name_length < 1 || name_length > PREAMBLE_NAME_MAX)
		return fault_text(fault, -EINVAL,
			"tunnel: the name of a door has 1 to %d bytes, not %zu", PREAMBLE_NAME_MAX,
			name_length);
	if (secret_length < PREAMBLE_SECRET_MIN || secret_length > PREAMBLE_SECRET_MAX)
		return fault_text(fault, -EINVAL,
			"tunnel: the secret of door %s has %d to %d bytes, not %zu", name,
			PREAMBLE_SECRET_MIN, PREAMBLE_SECRET_MAX, secret_length);
	return 0;
}

static int refuse(unsigned char answer, const char *name, struct fault *fault)
{
	switch (answer) {
	case PREAMBLE_VERSION:
		return fault_text(fault, -EPROTONOSUPPORT,
			"door %s: the peer's data port speaks another version than %d; both hosts "
			"need the same release of ferry",
			name, VERSION);
	case PREAMBLE_BUSY:
		return fault_text(
			fault, -EBUSY, "door %s: it has all the links that the peer allows", name);
	case PREAMBLE_NOBODY:
		return fault_text(
			fault, -ENXIO, "door %s: at the peer nobody listens behind it", name);
	default:
		return fault_text(
			fault, -EPROTO, "door %s: the peer answers with %d", name, answer);
	}
}

int preamble_send(struct stream *stream, const char *name, const char *secret,
	const struct limit *limit, struct fault *fault)
{
	char bytes[HEAD_BYTES + PREAMBLE_NAME_MAX + PREAMBLE_SECRET_MAX + 1] = MAGIC;
	unsigned char answer = 0;
	int r = preamble_check(name, secret, fault);

	if (r < 0)
		return r;
	size_t name_length = strlen(name), secret_length = strlen(secret);
	bytes[AT_VERSION] = VERSION;
	bytes[AT_NAME_LENGTH] = (char)name_length;
	bytes[AT_SECRET_LENGTH] = (char)secret_length;
	snprintf(bytes + HEAD_BYTES, sizeof(bytes) - HEAD_BYTES, "%s%s", name, secret);
	r = stream_write_full(stream, bytes, HEAD_BYTES + name_length + secret_length, limit);
	gnutls_memset(bytes, 0, sizeof(bytes));
	if (r == 0)
		r = stream_read_full(stream, &answer, 1, limit);
	if (r == -ENODATA || r == -ECONNRESET || r == -EPIPE)
		return fault_text(fault, -EACCES,
			"door %s does not open: the peer does not know it (any more), or its "
			"secret "
			"is another one",
			name);
	if (r < 0)
		return fault_errno(fault, r, "door %s: waiting for the peer's answer", name);
	return answer == PREAMBLE_OPEN ? 0 : refuse(answer, name, fault);
}

int preamble_receive(
	struct stream *stream, const struct limit *limit, struct preamble *ret_preamble)
{
	unsigned char head[HEAD_BYTES];
	int r = stream_read_full(stream, head, sizeof(head), limit);

	if (r < 0)
		return r;
	if (memcmp(head, MAGIC, strlen(MAGIC)) != 0)
		return -EBADMSG;
	if (head[AT_VERSION] != VERSION) {
		preamble_answer(stream, PREAMBLE_VERSION, limit);
		return -EPROTONOSUPPORT;
	}
	size_t name_length = head[AT_NAME_LENGTH], secret_length = head[AT_SECRET_LENGTH];
	if (name_length > PREAMBLE_NAME_MAX || secret_length > PREAMBLE_SECRET_MAX)
		return -EBADMSG;
	memset(ret_preamble, 0, sizeof(*ret_preamble));
	r = stream_read_full(stream, ret_preamble->name, name_length, limit);
	if (r == 0)
		r = stream_read_full(stream, ret_preamble->secret, secret_length, limit);
	return r;
}

int preamble_answer(struct stream *stream, enum preamble_answer answer, const struct limit *limit)
{
	const char byte = (char)answer;

	return stream_write_full(stream, &byte, 1, limit);
}

bool preamble_secret_is(const struct preamble *preamble, const char *secret)
{
	char padded[PREAMBLE_SECRET_MAX + 1] = "";

	/* Over the whole width, so that not even the length shows. */
	strncpy(padded, secret, PREAMBLE_SECRET_MAX);
	bool is_equal = gnutls_memcmp(preamble->secret, padded, sizeof(padded)) == 0;
	gnutls_memset(padded, 0, sizeof(padded));
	return is_equal;
}

void preamble_clear(struct preamble *preamble)
{
	gnutls_memset(preamble, 0, sizeof(*preamble));
}
