/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the server together: socket, workers, keeper, HTTP; and takes it apart in three steps. */
#include "xmlrpc/server.h"

#include "xmlrpc/http.h"
#include "xmlrpc/keeper.h"
#include "xmlrpc/workers.h"

#include "base/alloc.h"
#include "base/io.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_PEM_BYTES ((size_t)1 << 20)

struct server {
	struct workers *workers;
	struct keeper *keeper;
	struct http *http;
	uint16_t port;
};

/* A peer that goes away while it is written to must not end the process. TLS libraries write
 * without MSG_NOSIGNAL. An application's own handler stays. */
static void ignore_sigpipe(void)
{
	struct sigaction action;

	if (sigaction(SIGPIPE, NULL, &action) < 0 || action.sa_handler != SIG_DFL)
		return;
	action = (struct sigaction){.sa_handler = SIG_IGN};
	sigaction(SIGPIPE, &action, NULL);
}

static int resolve(
	const struct server_params *params, struct addrinfo **ret_info, struct fault *fault)
{
	const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM,
	};
	char *port CLEANUP_FREE = xasprintf("%u", params->port);
	int r = getaddrinfo(params->address, port, &hints, ret_info);

	if (r == 0)
		return 0;
	return fault_text(fault, -EINVAL, "\"%s\" is no numeric IPv4 or IPv6 address: %s",
		params->address, gai_strerror(r));
}

static int open_listener(const struct server_params *params, int *ret_fd, struct fault *fault)
{
	struct addrinfo *info;
	const int one = 1;
	int r = resolve(params, &info, fault);

	if (r < 0)
		return r;
	int fd CLEANUP_CLOSE =
		socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0)
		r = fault_errno(fault, -errno, "cannot listen on %s port %u", params->address,
			params->port);
	freeaddrinfo(info);
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

static uint16_t port_of(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} address = {0};
	socklen_t length = sizeof(address);

	if (getsockname(fd, &address.any, &length) < 0)
		return 0;
	return ntohs(
		address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

static int start_http(struct server *server, const struct server_params *params, int listen_fd,
	struct fault *fault)
{
	struct buf certificate CLEANUP_BUF = BUF_INIT;
	struct buf key CLEANUP_BUF = BUF_INIT;
	int fd CLEANUP_CLOSE = listen_fd;

	int r = io_read_file(params->certificate_file, MAX_PEM_BYTES, &certificate);
	if (r < 0)
		return fault_errno(fault, r, "cannot read %s", params->certificate_file);
	r = io_read_file(params->key_file, MAX_PEM_BYTES, &key);
	if (r < 0)
		return fault_errno(fault, r, "cannot read %s", params->key_file);
	if (fd < 0)
		r = open_listener(params, &fd, fault);
	if (r < 0)
		return r;
	server->port = port_of(fd);
	r = http_start(
		&(struct http_params){
			.listen_fd = TAKE_FD(fd),
			.certificate = certificate.data ? certificate.data : "",
			.key = key.data ? key.data : "",
			.max_connections = params->max_connections,
			.max_connections_per_address = MAX(params->max_connections / 4 * 3, 1u),
			.max_body_bytes = params->max_body_bytes,
			.dispatcher = params->dispatcher,
			.streams = params->streams,
			.workers = server->workers,
			.keeper = server->keeper,
		},
		&server->http, fault);
	if (key.data)
		explicit_bzero(key.data, key.length);
	return r;
}

int server_start(
	const struct server_params *params, struct server **ret_server, struct fault *fault)
{
	struct server *server = xcalloc(1, sizeof(*server));
	int listen_fd CLEANUP_CLOSE = params->listen_fd > 0 ? params->listen_fd : -1;
	int r;

	ignore_sigpipe();
	server->workers = workers_start(params->n_workers);
	server->keeper = keeper_start();
	if (server->workers && server->keeper)
		r = start_http(server, params, TAKE_FD(listen_fd), fault);
	else
		r = fault_errno(fault, -EAGAIN, "cannot start the threads of the HTTPS server");
	if (r < 0) {
		server_stop(server);
		return r;
	}
	*ret_server = server;
	return 0;
}

uint16_t server_port(const struct server *server)
{
	return server->port;
}

void server_close(struct server *server)
{
	http_close(server->http);
}

struct server *server_stop(struct server *server)
{
	if (!server)
		return NULL;
	if (server->http) {
		http_close(server->http);
		http_wait_answered(server->http);
	}
	/* Workers first: they may still be behind an answer, in the dispatcher. */
	workers_stop(server->workers);
	http_stop(server->http);
	keeper_stop(server->keeper);
	free(server);
	return NULL;
}
