/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a link of the tunnel is over loopback: bytes up and down, and the time of one byte there
 * and back. Both agents' parts, and who writes and reads, are threads of this process, so the CPU
 * time is that of all of them. Prints one line of JSON. */
#include "agent/tunnel/tunnel.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"
#include "xmlrpc/tls.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SECRET        "0123456789abcdef0123456789abcdef"
#define DOOR          "bench"
#define CHUNK         ((size_t)256 << 10)
#define MIB           ((uint64_t)1 << 20)
#define N_ROUND_TRIPS 5000

struct bench {
	char dir[32];
	char *certificate, *key, *near_path, *far_path, *fingerprint;
	struct tunnel *tunnel;
	struct tunnel_link *link;
	int near, far;
	uint64_t n_bytes;
};

struct figures {
	double mib_per_sec, cpu_sec_per_gib;
};

static int fail(const struct fault *fault)
{
	char *text CLEANUP_FREE = fault_describe(fault);

	fprintf(stderr, "bench_tunnel: %s\n", text);
	return 1;
}

static int open_ends(struct bench *bench)
{
	struct sockaddr_un near = {.sun_family = AF_UNIX};
	int listener CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un far = {.sun_family = AF_UNIX};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	strcpy(far.sun_path, bench->far_path);
	strcpy(near.sun_path, bench->near_path);
	if (bind(listener, (struct sockaddr *)&far, sizeof(far)) < 0 || listen(listener, 1) < 0)
		return -1;
	const struct tunnel_link_params params = {
		.address = "127.0.0.1",
		.port = tunnel_port(bench->tunnel),
		.fingerprint = bench->fingerprint,
		.door = DOOR,
		.secret = SECRET,
		.socket_path = bench->near_path,
	};
	if (tunnel_link_open(&params, NULL, &bench->link, &fault) < 0)
		return -fail(&fault);
	bench->near = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bench->far = accept(listener, NULL, NULL);
	return connect(bench->near, (struct sockaddr *)&near, sizeof(near));
}

static int open_tunnel(struct bench *bench, struct fault *fault)
{
	const struct tunnel_params params = {
		.address = "127.0.0.1",
		.certificate_file = bench->certificate,
		.key_file = bench->key,
	};
	int r = tls_ensure_certificate(bench->certificate, bench->key, "bench", "127.0.0.1", fault);

	if (r == 0)
		r = tls_fingerprint(bench->certificate, &bench->fingerprint, fault);
	if (r == 0)
		r = tunnel_start(&params, &bench->tunnel, fault);
	if (r == 0)
		r = tunnel_open_door(bench->tunnel,
			&(struct tunnel_door){
				.name = DOOR, .secret = SECRET, .socket_path = bench->far_path},
			fault);
	return r;
}

struct writer {
	int fd;
	uint64_t n_bytes;
	pthread_t thread;
};

static void *writer_main(void *arg)
{
	struct writer *writer = arg;
	char *data CLEANUP_FREE = xcalloc(1, CHUNK);

	for (uint64_t left = writer->n_bytes; left;) {
		ssize_t n = send(writer->fd, data, MIN(left, CHUNK), MSG_NOSIGNAL);
		if (n <= 0)
			break;
		left -= (uint64_t)n;
	}
	return NULL;
}

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static struct figures stream_bytes(int from, int to, uint64_t n_bytes)
{
	struct writer writer = {.fd = from, .n_bytes = n_bytes};
	char *data CLEANUP_FREE = xcalloc(1, CHUNK);
	uint64_t start = clock_now_usec();
	double cpu = cpu_seconds();

	pthread_create(&writer.thread, NULL, writer_main, &writer);
	for (uint64_t left = n_bytes; left;) {
		ssize_t n = recv(to, data, CHUNK, 0);
		if (n <= 0)
			break;
		left -= (uint64_t)n;
	}
	double seconds = (double)(clock_now_usec() - start) / 1e6;
	pthread_join(writer.thread, NULL);
	return (struct figures){
		.mib_per_sec = (double)(n_bytes / MIB) / seconds,
		.cpu_sec_per_gib = (cpu_seconds() - cpu) * 1024 / (double)(n_bytes / MIB),
	};
}

static double round_trip_usec(int near, int far)
{
	uint64_t start = clock_now_usec();
	char byte = 0;

	for (int i = 0; i < N_ROUND_TRIPS; i++)
		if (send(near, &byte, 1, 0) != 1 || recv(far, &byte, 1, 0) != 1 ||
			send(far, &byte, 1, 0) != 1 || recv(near, &byte, 1, 0) != 1)
			return 0;
	return (double)(clock_now_usec() - start) / N_ROUND_TRIPS;
}

static void report(struct bench *bench)
{
	struct figures up = stream_bytes(bench->near, bench->far, bench->n_bytes);
	struct figures down = stream_bytes(bench->far, bench->near, bench->n_bytes);
	double usec = round_trip_usec(bench->near, bench->far);
	int pair[2];

	/* What the sockets at both ends cost alone. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	struct figures plain = stream_bytes(pair[0], pair[1], bench->n_bytes);
	close(pair[0]);
	close(pair[1]);
	printf("{\"up_mib_per_sec\": %.0f, \"up_cpu_sec_per_gib\": %.2f, "
	       "\"down_mib_per_sec\": %.0f, \"down_cpu_sec_per_gib\": %.2f, "
	       "\"plain_mib_per_sec\": %.0f, \"round_trip_usec\": %.1f}\n",
		up.mib_per_sec, up.cpu_sec_per_gib, down.mib_per_sec, down.cpu_sec_per_gib,
		plain.mib_per_sec, usec);
}

static void clear(struct bench *bench)
{
	cleanup_close(&bench->near);
	cleanup_close(&bench->far);
	tunnel_link_close(bench->link);
	tunnel_stop(bench->tunnel);
	unlink(bench->far_path);
	unlink(bench->certificate);
	unlink(bench->key);
	rmdir(bench->dir);
	free(bench->certificate);
	free(bench->key);
	free(bench->near_path);
	free(bench->far_path);
	free(bench->fingerprint);
}

int main(int argc, char **argv)
{
	struct bench bench CLEANUP(clear) = {
		.dir = "/tmp/ferry-bench-XXXXXX", .near = -1, .far = -1};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t n_mib = 1024;

	if (argc > 2 || (argc == 2 && parse_range(argv[1], 1, 1 << 20, &n_mib) < 0)) {
		fputs("usage: bench_tunnel [MIB]\n", stderr);
		return 2;
	}
	log_set_level(LOG_LEVEL_WARN);
	if (!mkdtemp(bench.dir)) {
		perror("bench_tunnel: /tmp");
		return 1;
	}
	bench.n_bytes = n_mib * MIB;
	bench.certificate = xasprintf("%s/tls.crt", bench.dir);
	bench.key = xasprintf("%s/tls.key", bench.dir);
	bench.near_path = xasprintf("%s/near", bench.dir);
	bench.far_path = xasprintf("%s/far", bench.dir);
	if (open_tunnel(&bench, &fault) < 0)
		return fail(&fault);
	if (open_ends(&bench) < 0) {
		perror("bench_tunnel: its sockets");
		return 1;
	}
	report(&bench);
	return 0;
}
