/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTPS server: POST /jsonrpc is JSON-RPC, any other POST is XML-RPC (contract 1.1), other
 * methods are for streams (http_stream.h). A request whose answer comes later costs a suspended
 * connection, not a thread. */
#ifndef FERRY_XMLRPC_SERVER_H
#define FERRY_XMLRPC_SERVER_H

#include "base/fault.h"
#include "xmlrpc/dispatch.h"
#include "xmlrpc/http_stream.h"

#include <stdint.h>

struct server;

struct server_params {
	int listen_fd; /* > 0: a socket that listens already, which the server takes over (also when
			* server_start fails); address and port are not used then */
	const char *address;          /* numeric */
	uint16_t port;                /* 0: any; see server_port */
	const char *certificate_file; /* PEM; see tls.h */
	const char *key_file;
	unsigned n_workers; /* threads that run handlers */
	unsigned max_connections;
	size_t max_body_bytes; /* larger: HTTP 413 */
	struct dispatcher *dispatcher;
	const struct http_streams *streams; /* NULL: none; borrowed, as the dispatcher */
};

int server_start(
	const struct server_params *params, struct server **ret_server, struct fault *fault);
uint16_t server_port(const struct server *server);
/* No new connections or requests; what runs goes on. */
void server_close(struct server *server);
/* Ends: pending calls, and streams, must have been ended by their owners before. Blocks for the
 * workers. NULL is fine. */
struct server *server_stop(struct server *server);

#endif
