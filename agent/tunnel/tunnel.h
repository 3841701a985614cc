/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams between two agents, in TLS 1.3, through one port of the receiving agent: guests'
 * memory and iSCSI.
 *
 * A link is authenticated both ways: the sender pins the receiver's public key (as the API client
 * does), and names a door with its secret, which the receiver gave it over the API. A door leads to
 * one socket of the receiver's host, and takes so many connections at a time as it was made for.
 * Who names no door, or has the wrong secret, learns nothing but the end of the connection, and
 * costs a bounded time and memory. */
#ifndef FERRY_AGENT_TUNNEL_TUNNEL_H
#define FERRY_AGENT_TUNNEL_TUNNEL_H

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

/* --- Receiver -----------------------------------------------------------------------------------
 */

struct tunnel;

struct tunnel_params {
	const char *address; /* numeric */
	uint16_t port;       /* 0: the system's choice */
	const char *certificate_file;
	const char *key_file;
};

/* Binds, listens, starts the thread that accepts. */
int tunnel_start(
	const struct tunnel_params *params, struct tunnel **ret_tunnel, struct fault *fault);
/* Cuts everything; blocks until its threads have ended. NULL is fine. */
struct tunnel *tunnel_stop(struct tunnel *tunnel);
uint16_t tunnel_port(const struct tunnel *tunnel);

struct tunnel_door {
	const char *name;   /* unique, up to 200 bytes; a migration's uuid and what it is for */
	const char *secret; /* 32 to 200 bytes */
	const char *socket_path; /* the UNIX socket that a link is connected to; NULL: */
	uint16_t port;           /* a TCP port of 127.0.0.1 */
	unsigned max_links;      /* at a time; 0: 1 */
	/* A peer that leaves unread what is sent to it is cut after so long; 0: what the kernel
	 * says of a peer that reads nothing at all. */
	uint64_t unread_usec;
};

/* -EEXIST, -EINVAL. All strings are copied. Doors are opened and closed from any thread. */
int tunnel_open_door(struct tunnel *tunnel, const struct tunnel_door *door, struct fault *fault);
/* Closes it and cuts its links; when it returns nothing more comes through. Fine when there is
 * none. */
void tunnel_close_door(struct tunnel *tunnel, const char *name);

DEFINE_CLEANUP(struct tunnel *, tunnel_stop)
#define CLEANUP_TUNNEL CLEANUP(cleanup_tunnel_stop)

/* --- Sender -------------------------------------------------------------------------------------
 */

struct tunnel_link;

struct tunnel_link_params {
	const char *address;
	uint16_t port;
	const char *fingerprint; /* of the receiver's public key, as in struct client_params */
	const char *door;
	const char *secret;
	/* Made here (0600); the first who connects is let through. NULL: tunnel_link_take. */
	const char *socket_path;
	uint64_t timeout_usec; /* for connection, handshake and the door's answer; 0: 10 s */
};

/* Connects and is let in, then listens on socket_path (a socket that is left there is replaced);
 * whoever connects there (QEMU) talks to the receiver's socket through a thread of its own, and
 * each direction's end is passed on alone. -EKEYREJECTED: another key, and it was told nothing;
 * -EACCES: the door does not open; -EBUSY: it has all the links that it takes; -ENXIO: nobody
 * listens behind it; -ECONNREFUSED, -ETIMEDOUT, -ECANCELED ... */
int tunnel_link_open(const struct tunnel_link_params *params, struct cancel *cancel,
	struct tunnel_link **ret_link, struct fault *fault);
/* Without socket_path: the near end, a non-blocking stream socket, for the caller to own; once. */
int tunnel_link_take(struct tunnel_link *link);
/* Cuts it, removes the socket. NULL is fine. */
struct tunnel_link *tunnel_link_close(struct tunnel_link *link);
/* Bytes sent to the receiver so far. Any thread. */
uint64_t tunnel_link_sent(const struct tunnel_link *link);
/* And on the wire, with what TLS adds. On a slow link what can be packed is packed (zstd): fewer.
 */
uint64_t tunnel_link_wire(const struct tunnel_link *link);
/* Whether the way to the receiver is broken: cut, reset, or the receiver has acknowledged or read
 * nothing for 15 s (TCP_USER_TIMEOUT). Any thread. */
bool tunnel_link_is_broken(struct tunnel_link *link);
/* Readable once the link has ended, well or broken; owned by the link. It is the only sign while
 * QEMU waits at pre-switchover and does not look at its socket. */
int tunnel_link_fd(const struct tunnel_link *link);

DEFINE_CLEANUP(struct tunnel_link *, tunnel_link_close)
#define CLEANUP_TUNNEL_LINK CLEANUP(cleanup_tunnel_link_close)

#endif
