/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/tunnel/socket.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SILENT_MSEC    15000
#define PROBE_IDLE_SEC 5
#define PROBE_SEC      5
#define N_PROBES       2
#define RETRY_USEC     (5 * USEC_PER_MSEC)
/* What waits in the kernel for the link: the rest waits here, where it can be packed, and what
 * comes later (a guest's last pages) does not wait behind megabytes. */
#define QUEUE_BYTES (256 << 10)

int socket_await(int fd, short events, const struct limit *limit)
{
	struct pollfd pollfd = {.fd = fd, .events = events};
	int r = cancel_poll(limit->cancel, &pollfd, 1, limit->deadline_usec);

	if (r == 0)
		return -ETIMEDOUT;
	return r < 0 ? r : 0;
}

/* --- TCP ----------------------------------------------------------------------------------------
 */

static int parse_tcp(const char *address, uint16_t port, struct sockaddr_storage *ret,
	socklen_t *ret_length, struct fault *fault)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &in4->sin_addr) == 1) {
		in4->sin_family = AF_INET;
		in4->sin_port = htons(port);
		*ret_length = sizeof(*in4);
		return 0;
	}
	if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		*ret_length = sizeof(*in6);
		return 0;
	}
	return fault_text(
		fault, -EINVAL, "data port: \"%s\" is not a numeric IPv4 or IPv6 address", address);
}

static int refuse_listen(const char *address, uint16_t port, int error, struct fault *fault)
{
	const char *hint = "";

	if (error == -EADDRINUSE)
		hint = "; another program listens there: stop it, or change [ferryd] data_port";
	if (error == -EADDRNOTAVAIL)
		hint = "; this host has no such address: change [ferryd] data_address";
	if (error == -EACCES)
		hint = "; a port below 1024 needs root or CAP_NET_BIND_SERVICE";
	return fault_text(fault, error, "cannot listen on data port %u of %s: %s%s", (unsigned)port,
		address, strerror(-error), hint);
}

int socket_listen_tcp(
	const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct fault *fault)
{
	struct sockaddr_storage name;
	socklen_t length = 0;
	const int on = 1;
	int r = parse_tcp(address, port, &name, &length, fault);

	if (r < 0)
		return r;
	int fd CLEANUP_CLOSE =
		socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return refuse_listen(address, port, -errno, fault);
	/* A restart must not wait for the connections of the run before it to time out. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&name, length) < 0 || listen(fd, SOMAXCONN) < 0)
		return refuse_listen(address, port, -errno, fault);
	length = sizeof(name);
	if (getsockname(fd, (struct sockaddr *)&name, &length) < 0)
		return refuse_listen(address, port, -errno, fault);
	/* Both families have the port at the same place. */
	*ret_port = ntohs(((struct sockaddr_in *)&name)->sin_port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int await_connected(int fd, const struct limit *limit)
{
	int error = 0;
	socklen_t length = sizeof(error);
	int r = socket_await(fd, POLLOUT, limit);

	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		return -errno;
	return -error;
}

static int connect_tcp(const struct sockaddr_storage *name, socklen_t length,
	const struct limit *limit, int *ret_fd)
{
	int fd CLEANUP_CLOSE =
		socket(name->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)name, length) < 0)
		r = errno == EINPROGRESS ? await_connected(fd, limit) : -errno;
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

int socket_connect_tcp(const char *address, uint16_t port, const struct limit *limit, int *ret_fd,
	struct fault *fault)
{
	struct sockaddr_storage name;
	socklen_t length = 0;
	int r = parse_tcp(address, port, &name, &length, fault);

	if (r < 0)
		return r;
	r = connect_tcp(&name, length, limit, ret_fd);
	if (r < 0)
		return fault_errno(fault, r,
			"cannot connect to the peer's data port, %s port %u (is a firewall between "
			"the hosts?)",
			address, (unsigned)port);
	return 0;
}

static void set_tcp(int fd, int option, int value)
{
	setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value));
}

int socket_connect_loopback(
	uint16_t port, const struct limit *limit, int *ret_fd, struct fault *fault)
{
	struct sockaddr_storage name;
	socklen_t length = 0;
	int r = parse_tcp("127.0.0.1", port, &name, &length, fault);

	if (r == 0)
		r = connect_tcp(&name, length, limit, ret_fd);
	if (r < 0)
		return fault_errno(
			fault, r, "tunnel: cannot connect to port %u of 127.0.0.1", (unsigned)port);
	set_tcp(*ret_fd, TCP_NODELAY, 1);
	return 0;
}

void socket_tune_tcp(int fd)
{
	const int on = 1;

	set_tcp(fd, TCP_NODELAY, 1);
	set_tcp(fd, TCP_USER_TIMEOUT, SILENT_MSEC);
	set_tcp(fd, TCP_NOTSENT_LOWAT, QUEUE_BYTES);
	set_tcp(fd, TCP_KEEPIDLE, PROBE_IDLE_SEC);
	set_tcp(fd, TCP_KEEPINTVL, PROBE_SEC);
	set_tcp(fd, TCP_KEEPCNT, N_PROBES);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

char *socket_peer_name(int fd)
{
	struct sockaddr_storage name;
	socklen_t length = sizeof(name);
	char host[INET6_ADDRSTRLEN], port[8];

	if (getpeername(fd, (struct sockaddr *)&name, &length) < 0 ||
		getnameinfo((struct sockaddr *)&name, length, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return xstrdup("?");
	bool is_v6 = strchr(host, ':');
	return xasprintf("%s%s%s:%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
}

/* --- UNIX ---------------------------------------------------------------------------------------
 */

static int open_unix(
	const char *path, struct sockaddr_un *ret_name, int *ret_fd, struct fault *fault)
{
	*ret_name = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret_name->sun_path))
		return fault_text(
			fault, -ENAMETOOLONG, "tunnel: the path %s is too long for a socket", path);
	memcpy(ret_name->sun_path, path, strlen(path) + 1);
	*ret_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*ret_fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "tunnel: socket");
	}
	return 0;
}

int socket_listen_unix(const char *path, int *ret_fd, struct fault *fault)
{
	struct sockaddr_un name;
	struct stat info;
	int fd CLEANUP_CLOSE = -1;
	int r = open_unix(path, &name, &fd, fault);

	if (r < 0)
		return r;
	if (lstat(path, &info) == 0 && S_ISSOCK(info.st_mode))
		unlink(path);
	/* Before bind, the mode is that of the file that bind makes: there is no moment in which
	 * others could connect. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0 ||
		listen(fd, 1) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "tunnel: cannot listen on %s", path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int socket_connect_unix(
	const char *path, const struct limit *limit, int *ret_fd, struct fault *fault)
{
	struct sockaddr_un name;
	int fd CLEANUP_CLOSE = -1;
	int r = open_unix(path, &name, &fd, fault);

	if (r < 0)
		return r;
	/* EAGAIN: others wait to be accepted and there is no room; no event tells when there is. */
	while (connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0) {
		int error = -errno;
		if (error != -EAGAIN || clock_now_usec() >= limit->deadline_usec)
			return fault_errno(fault, error, "tunnel: cannot connect to %s", path);
		r = cancel_sleep(limit->cancel, RETRY_USEC);
		if (r < 0)
			return fault_errno(fault, r, "tunnel: connecting to %s", path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}
