/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets of the tunnel: TCP between the agents, UNIX sockets on each host. All that are made
 * here are non-blocking. */
#ifndef FERRY_AGENT_TUNNEL_SOCKET_H
#define FERRY_AGENT_TUNNEL_SOCKET_H

#include "base/cancel.h"
#include "base/fault.h"

#include <stdint.h>

/* What every wait of the tunnel ends at. */
struct limit {
	uint64_t deadline_usec;
	const struct cancel *cancel; /* may be NULL */
};

/* Waits until one of `events` shows on the descriptor: 0, -ETIMEDOUT, -ECANCELED. */
int socket_await(int fd, short events, const struct limit *limit);

/* Numeric address, IPv4 or IPv6; port 0: the system's choice. The caller owns *ret_fd. */
int socket_listen_tcp(
	const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct fault *fault);
int socket_connect_tcp(const char *address, uint16_t port, const struct limit *limit, int *ret_fd,
	struct fault *fault);
/* To a program of this host that listens on 127.0.0.1. */
int socket_connect_loopback(
	uint16_t port, const struct limit *limit, int *ret_fd, struct fault *fault);
/* For a connection between agents: small messages go at once, and a peer that acknowledges
 * nothing, or reads nothing, for 15 s is seen as gone. */
void socket_tune_tcp(int fd);
/* "192.0.2.7:4711", or "?"; the caller frees it. */
char *socket_peer_name(int fd);

/* A socket of mode 0600; one that an earlier agent left there is replaced. */
int socket_listen_unix(const char *path, int *ret_fd, struct fault *fault);
int socket_connect_unix(
	const char *path, const struct limit *limit, int *ret_fd, struct fault *fault);

#endif
