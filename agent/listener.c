/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/listener.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

static socklen_t make_address(const struct config *config, struct sockaddr_storage *address)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, config->listen_host, &in4->sin_addr) == 1) {
		in4->sin_family = AF_INET;
		in4->sin_port = htons(config->listen_port);
		return sizeof(*in4);
	}
	/* The configuration lets only numeric addresses through. */
	inet_pton(AF_INET6, config->listen_host, &in6->sin6_addr);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(config->listen_port);
	return sizeof(*in6);
}

static int refuse(const struct config *config, int error, struct fault *fault)
{
	const char *hint = "";

	if (error == -EADDRINUSE)
		hint = "; another program listens there: stop it, or change [ferryd] listen";
	if (error == -EACCES)
		hint = "; a port below 1024 needs root or CAP_NET_BIND_SERVICE";
	if (error == -EADDRNOTAVAIL)
		hint = "; this host has no such address: change [ferryd] listen";
	return fault_text(
		fault, error, "cannot listen on %s: %s%s", config->listen, strerror(-error), hint);
}

static int bound_port(int fd, uint16_t *ret_port)
{
	/* Large enough for both families, which have the port at the same place. */
	struct sockaddr_in6 address = {0};
	socklen_t length = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return -errno;
	*ret_port = ntohs(address.sin6_port);
	return 0;
}

int listener_open(const struct config *config, int *ret_fd, char **ret_url, struct fault *fault)
{
	struct sockaddr_storage address;
	socklen_t length = make_address(config, &address);
	int fd CLEANUP_CLOSE =
		socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int on = 1, off = 0;
	uint16_t port = 0;

	if (fd < 0)
		return refuse(config, -errno, fault);
	/* A restart must not wait for the connections of the run before it to time out. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (address.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, SOMAXCONN) < 0)
		return refuse(config, -errno, fault);
	int r = bound_port(fd, &port);
	if (r < 0)
		return refuse(config, r, fault);
	bool is_v6 = strchr(config->address, ':');
	*ret_url = xasprintf("https://%s%s%s:%u", is_v6 ? "[" : "", config->address,
		is_v6 ? "]" : "", (unsigned)port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}
