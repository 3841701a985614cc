/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP requests to the dispatcher and answers back; private to the server. The one place that sees
 * libmicrohttpd.
 *
 * One thread of libmicrohttpd moves all bytes. When a body is complete, its connection is suspended
 * and a worker runs the dispatcher; the answer, whoever gives it, resumes the connection. */
#ifndef FERRY_XMLRPC_HTTP_H
#define FERRY_XMLRPC_HTTP_H

#include "base/fault.h"
#include "xmlrpc/dispatch.h"
#include "xmlrpc/http_stream.h"
#include "xmlrpc/keeper.h"
#include "xmlrpc/workers.h"

#include <stddef.h>

struct http;

struct http_params {
	int listen_fd;           /* taken over */
	const char *certificate; /* PEM text */
	const char *key;
	unsigned max_connections;
	unsigned max_connections_per_address;
	size_t max_body_bytes;
	struct dispatcher *dispatcher;      /* borrowed, as the three below */
	const struct http_streams *streams; /* NULL: none */
	struct workers *workers;
	struct keeper *keeper;
};

int http_start(const struct http_params *params, struct http **ret_http, struct fault *fault);
/* No new connections; a new request is answered 503. Idempotent. */
void http_close(struct http *http);
/* Waits until every request has its answer, and a few seconds at most until the last have left.
 * After http_close. */
void http_wait_answered(struct http *http);
/* After http_wait_answered. NULL is fine. */
struct http *http_stop(struct http *http);

#endif
