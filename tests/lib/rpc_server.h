/* SPDX-License-Identifier: Apache-2.0 */
/* A real server on loopback with a few methods, and a raw TLS connection to it, for the tests of
 * server and client. */
#ifndef FERRY_TESTS_LIB_RPC_SERVER_H
#define FERRY_TESTS_LIB_RPC_SERVER_H

#include "xmlrpc/client.h"
#include "xmlrpc/dispatch.h"
#include "xmlrpc/server.h"

#include <stdint.h>

/* Methods, none with a session: X.echo(any), X.wait() (pending until rpc_server_answer), X.big(n)
 * (a string of n characters), X.address() (the peer's). */
struct rpc_server {
	char folder[40];
	char *certificate;
	char *key;
	char *fingerprint;
	char *url;
	struct dispatcher *dispatcher;
	const struct http_streams *streams; /* from the next start on; NULL: none */
	struct server *server;

	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t changed;
	struct call *pending[512];
	size_t n_pending;
	size_t n_calls; /* that reached a handler */
};

struct rpc_server *rpc_server_new(unsigned n_workers);
struct rpc_server *rpc_server_free(struct rpc_server *rpc);
/* On the port that it had before, if any. */
void rpc_server_start(struct rpc_server *rpc, unsigned n_workers);
void rpc_server_stop(struct rpc_server *rpc);
/* Waits until n calls of X.wait are pending; fails the test after 60 s. */
void rpc_server_wait_pending(struct rpc_server *rpc, size_t n);
/* Ends every pending call with "woken". */
void rpc_server_answer(struct rpc_server *rpc);
size_t rpc_server_calls(struct rpc_server *rpc);

/* A client with that fingerprint (NULL: the server's). */
struct client *rpc_client_new(struct rpc_server *rpc, const char *fingerprint);
/* Calls X.echo("ping") and checks the answer. */
void rpc_client_ping(struct client *client);

struct raw_tls;
struct raw_tls *raw_tls_open(uint16_t port);
struct raw_tls *raw_tls_close(struct raw_tls *raw);
void raw_tls_send(struct raw_tls *raw, const char *text);
/* One HTTP answer: headers and as many bytes as Content-Length says. NULL when the server has
 * closed (or reset) the connection before. Waits at most 30 s. The caller frees it. */
char *raw_tls_receive(struct raw_tls *raw);
/* POST with that body. */
void raw_tls_post(struct raw_tls *raw, const char *path, const char *body);

#endif
