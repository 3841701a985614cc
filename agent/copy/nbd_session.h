/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to one NBD export of a server on this host, by libnbd. Belongs to one thread. */
#ifndef FERRY_AGENT_COPY_NBD_SESSION_H
#define FERRY_AGENT_COPY_NBD_SESSION_H

#include "agent/copy/endpoint.h"

struct nbd_handle;

struct nbd_session {
	struct nbd_handle *handle; /* NULL: none, or buried */
	char *name;                /* for texts */
	uint64_t size_bytes;
	uint32_t block_bytes;
	bool has_map; /* the server tells what is data */
	bool has_df;  /* it can be told to answer a read in one part */
	int dead;     /* negative errno: why nothing more goes through it */
	char error[400];
};

/* Connects, negotiates, checks size and what is asked of the export; the session is to be freed
 * with nbd_session_deinit either way. -ECONNREFUSED, -ENOENT: no such socket, or no such export;
 * -EIO: another size; -EINVAL: no disk; -EROFS: it cannot be written to; -ETIMEDOUT, -ECANCELED,
 * -ECONNRESET. */
int nbd_session_open(struct nbd_session *session, const struct endpoint_spec *spec,
	uint64_t deadline_usec, const struct cancel *cancel, struct fault *fault);
/* Moves bytes once: 1 when something happened, 0 at the deadline, -ECANCELED, or `dead`. The
 * library's callbacks run in here. wake_fd (-1: none): *ret_woken when it is readable. */
int nbd_session_pump(struct nbd_session *session, int wake_fd, uint64_t deadline_usec,
	const struct cancel *cancel, bool *ret_woken);
/* Nothing goes through it any more; the first reason is kept, and returned. */
int nbd_session_die(struct nbd_session *session, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Closes the connection: the library forgets every request and lets go of its buffer. */
void nbd_session_bury(struct nbd_session *session);
/* Tells the server, if nothing is in flight, that this was all; not waited for. */
void nbd_session_bye(struct nbd_session *session);
void nbd_session_deinit(struct nbd_session *session);

#endif
