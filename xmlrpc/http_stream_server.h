/* SPDX-License-Identifier: Apache-2.0 */
/* The server's end of a stream; private to the server. All is called by the thread of the HTTP
 * library. */
#ifndef FERRY_XMLRPC_HTTP_STREAM_SERVER_H
#define FERRY_XMLRPC_HTTP_STREAM_SERVER_H

#include "xmlrpc/http_stream.h"

struct MHD_Connection;

struct http_stream_params {
	struct MHD_Connection *connection;
	const struct http_stream_route *route;
	const char *method;
	const char *peer_address;
	/* The thread has let go of it; called once, by that. */
	void (*closed)(void *arg);
	void *arg;
};

/* The route of the path; NULL when it is not one of these. */
const struct http_stream_route *http_streams_find(
	const struct http_streams *streams, const char *path);
/* Whether the route knows the method. */
bool http_stream_route_allows(const struct http_stream_route *route, const char *method);

/* Of a request whose headers have come. */
struct http_stream *http_stream_new(const struct http_stream_params *params);
/* The request may go on: length 0: by its headers, or by its end. false: the connection is to be
 * closed. */
bool http_stream_advance(struct http_stream *stream, const char *data, size_t *length);
/* The connection has ended, or streams->begin has refused. */
void http_stream_gone(struct http_stream *stream);

#endif
