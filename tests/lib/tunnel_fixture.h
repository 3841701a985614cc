/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of the tunnel in one process: "near" is the sender's socket, "far" is what the door
 * leads to. */
#ifndef FERRY_TESTS_LIB_TUNNEL_FIXTURE_H
#define FERRY_TESTS_LIB_TUNNEL_FIXTURE_H

#include "tests/lib/check.h"

#include "agent/tunnel/tunnel.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "xmlrpc/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SECRET   "0123456789abcdef0123456789abcdef"
#define DOOR     "6f8c0e0a-9a2b-4c53-8a48-2b6e6f3b7c11/memory"
#define PATIENCE (20 * USEC_PER_SEC)

struct tunnel_fixture {
	char folder[32];
	char *certificate, *key, *fingerprint;
	char *near_path, *far_path;
	int far_listener;
	struct tunnel *tunnel;
	struct tunnel_link *link;
	struct fault fault;
};

static inline int listen_unix(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(name.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

static inline void start_tunnel(struct tunnel_fixture *fixture)
{
	const struct tunnel_params params = {
		.address = "127.0.0.1",
		.certificate_file = fixture->certificate,
		.key_file = fixture->key,
	};

	check_ok(&fixture->fault, tunnel_start(&params, &fixture->tunnel, &fixture->fault));
	assert_int_not_equal(tunnel_port(fixture->tunnel), 0);
}

static inline void open_door(struct tunnel_fixture *fixture)
{
	const struct tunnel_door door = {
		.name = DOOR, .secret = SECRET, .socket_path = fixture->far_path};

	check_ok(&fixture->fault, tunnel_open_door(fixture->tunnel, &door, &fixture->fault));
}

static inline int tunnel_setup(void **state)
{
	struct tunnel_fixture *fixture = xcalloc(1, sizeof(*fixture));

	*state = fixture;
	log_set_level(LOG_LEVEL_NONE);
	strcpy(fixture->folder, "/tmp/ferry-tunnel-XXXXXX");
	assert_non_null(mkdtemp(fixture->folder));
	fixture->certificate = xasprintf("%s/tls.crt", fixture->folder);
	fixture->key = xasprintf("%s/tls.key", fixture->folder);
	fixture->near_path = xasprintf("%s/near", fixture->folder);
	fixture->far_path = xasprintf("%s/far", fixture->folder);
	check_ok(&fixture->fault, tls_ensure_certificate(fixture->certificate, fixture->key, "host",
					  "127.0.0.1", &fixture->fault));
	check_ok(&fixture->fault,
		tls_fingerprint(fixture->certificate, &fixture->fingerprint, &fixture->fault));
	fixture->far_listener = listen_unix(fixture->far_path);
	start_tunnel(fixture);
	open_door(fixture);
	return 0;
}

static inline int tunnel_teardown(void **state)
{
	struct tunnel_fixture *fixture = *state;

	tunnel_link_close(fixture->link);
	tunnel_stop(fixture->tunnel);
	cleanup_close(&fixture->far_listener);
	unlink(fixture->far_path);
	unlink(fixture->certificate);
	unlink(fixture->key);
	/* The near socket went with its link. */
	int r = rmdir(fixture->folder);
	fault_clear(&fixture->fault);
	free(fixture->certificate);
	free(fixture->key);
	free(fixture->fingerprint);
	free(fixture->near_path);
	free(fixture->far_path);
	free(fixture);
	return r;
}

static inline struct tunnel_link_params link_params(struct tunnel_fixture *fixture)
{
	return (struct tunnel_link_params){
		.address = "127.0.0.1",
		.port = tunnel_port(fixture->tunnel),
		.fingerprint = fixture->fingerprint,
		.door = DOOR,
		.secret = SECRET,
		.socket_path = fixture->near_path,
		.timeout_usec = PATIENCE,
	};
}

static inline int try_link(struct tunnel_fixture *fixture, const struct tunnel_link_params *params)
{
	fault_clear(&fixture->fault);
	return tunnel_link_open(params, NULL, &fixture->link, &fixture->fault);
}

static inline void open_link(struct tunnel_fixture *fixture)
{
	const struct tunnel_link_params params = link_params(fixture);

	check_ok(&fixture->fault, try_link(fixture, &params));
}

static inline int connect_near(struct tunnel_fixture *fixture)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(name.sun_path, fixture->near_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	return fd;
}

static inline int accept_far(struct tunnel_fixture *fixture)
{
	int fd = accept4(fixture->far_listener, NULL, NULL, SOCK_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static inline int connect_tcp(const struct tunnel_fixture *fixture)
{
	struct sockaddr_in name = {
		.sin_family = AF_INET,
		.sin_port = htons(tunnel_port(fixture->tunnel)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	return fd;
}

static inline void await(int fd, short events)
{
	struct pollfd pollfd = {.fd = fd, .events = events};

	assert_int_equal(cancel_poll(NULL, &pollfd, 1, clock_deadline(PATIENCE)), 1);
}

/* Waits for the other side's end, dropping what comes before; how many bytes came. */
static inline size_t read_to_end(int fd)
{
	char data[4096];
	size_t total = 0;

	for (;;) {
		await(fd, POLLIN);
		ssize_t n = read(fd, data, sizeof(data));
		if (n <= 0)
			return total;
		total += (size_t)n;
	}
}

#define TUNNEL_TEST(name) cmocka_unit_test_setup_teardown(name, tunnel_setup, tunnel_teardown)

#endif
