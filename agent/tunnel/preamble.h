/* SPDX-License-Identifier: Apache-2.0 */
/* What a link begins with, inside TLS: the sender names a door and its secret, and gets one byte.
 *
 *     offset  bytes
 *     0       4       "FRTN"
 *     4       1       version: 1
 *     5       1       length of the name
 *     6       1       length of the secret
 *     7       -       name, secret
 *
 * Who cannot open the door gets no answer but the end of the connection. */
#ifndef FERRY_AGENT_TUNNEL_PREAMBLE_H
#define FERRY_AGENT_TUNNEL_PREAMBLE_H

#include "agent/tunnel/stream.h"

#define PREAMBLE_NAME_MAX   200
#define PREAMBLE_SECRET_MIN 32
#define PREAMBLE_SECRET_MAX 200

struct preamble {
	char name[PREAMBLE_NAME_MAX + 1];
	char secret[PREAMBLE_SECRET_MAX + 1];
};

enum preamble_answer {
	PREAMBLE_OPEN = 'O',    /* from here on the bytes are the stream's */
	PREAMBLE_VERSION = 'V', /* another version is spoken here */
	PREAMBLE_BUSY = 'B',    /* the door has all the links that it takes */
	PREAMBLE_NOBODY = 'N',  /* nobody listens behind it */
};

/* -EINVAL: a name or secret that no door can have. */
int preamble_check(const char *name, const char *secret, struct fault *fault);

/* The sender's part: 0 when it is let in; -EACCES, -EBUSY, -ENXIO (nobody listens behind the
 * door), -EPROTONOSUPPORT, -ETIMEDOUT, -ECANCELED ... */
int preamble_send(struct stream *stream, const char *name, const char *secret,
	const struct limit *limit, struct fault *fault);

/* The receiver's: -EPROTONOSUPPORT (the peer has been told), -EBADMSG, or what stream_read_full
 * says. */
int preamble_receive(
	struct stream *stream, const struct limit *limit, struct preamble *ret_preamble);
int preamble_answer(struct stream *stream, enum preamble_answer answer, const struct limit *limit);

/* Whether they are equal, in a time that does not tell where they differ. */
bool preamble_secret_is(const struct preamble *preamble, const char *secret);
void preamble_clear(struct preamble *preamble);

#define CLEANUP_PREAMBLE CLEANUP(preamble_clear)

#endif
