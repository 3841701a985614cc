/* SPDX-License-Identifier: Apache-2.0 */
/* Carries bytes both ways between a TLS stream and a local socket, each direction on its own: an
 * end of the one is passed on and leaves the other open. Whoever does not read makes the other side
 * wait; the memory taken is two fixed buffers. */
#ifndef FERRY_AGENT_TUNNEL_RELAY_H
#define FERRY_AGENT_TUNNEL_RELAY_H

#include "agent/tunnel/stream.h"

#include <stdatomic.h>
#include <stdint.h>

/* What is sent to the receiver goes in blocks (block.h), what comes back as it is. */
enum relay_side { RELAY_SENDER, RELAY_RECEIVER };

struct relay_params {
	enum relay_side side;
	struct stream *stream; /* borrowed */
	int local_fd;          /* borrowed; non-blocking */
	const struct cancel *cut;
	/* What the peer is sent and has not read for so long ends the relay, -ETIMEDOUT; 0: never.
	 * Who reads a little now and then does not escape it. */
	uint64_t unread_usec;
	_Atomic uint64_t *n_sent; /* counts bytes from local_fd to the stream; NULL */
	_Atomic uint64_t *n_wire; /* and what became of them, in TLS; NULL */
	/* Set as soon as the way to the peer is found broken, while what the peer had sent before
	 * is still handed on; NULL. */
	atomic_bool *is_broken;
};

/* Blocks until both directions have ended: 0, -ECANCELED when it was cut, or what broke the way to
 * the peer (-ECONNRESET, -ETIMEDOUT, -EPROTO ...). The caller then closes both. */
int relay_run(const struct relay_params *params);

#endif
