/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/nbd.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define QEMU_IMG "/usr/bin/qemu-img"
#define QEMU_NBD "/usr/bin/qemu-nbd"
#define LONG     (30 * USEC_PER_SEC)

bool nbd_is_available(void)
{
	return access(QEMU_IMG, X_OK) == 0 && access(QEMU_NBD, X_OK) == 0;
}

static struct child *start(const char *const *argv)
{
	const struct run_params params = {.argv = argv, .log_id = "test.nbd"};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct child *child = NULL;

	check_ok(&fault, run_start(&params, &child, &fault));
	return child;
}

void nbd_qemu_img(const char *const *arguments)
{
	const char *argv[16] = {QEMU_IMG};

	for (size_t i = 0; arguments[i]; i++)
		argv[i + 1] = arguments[i];
	struct child *child CLEANUP_CHILD = start(argv);
	assert_int_equal(run_wait(child, clock_deadline(LONG)), 0);
	assert_int_equal(run_status(child), 0);
}

static int try_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

void nbd_serve(struct nbd_fixture *nbd)
{
	char *socket CLEANUP_FREE = xasprintf("--socket=%s", nbd->socket);
	const char *const argv[] = {QEMU_NBD, socket, "--persistent", "--shared=0", "-x",
		NBD_EXPORT, "--discard=unmap", "-f", nbd->format, nbd->image, NULL};
	uint64_t deadline = clock_deadline(LONG);

	unlink(nbd->socket);
	nbd->child = start(argv);
	while (try_connect(nbd->socket) < 0) {
		assert_true(clock_now_usec() < deadline);
		assert_int_equal(
			run_wait(nbd->child, clock_deadline(10 * USEC_PER_MSEC)), -ETIMEDOUT);
	}
}

void nbd_start(struct nbd_fixture *nbd, const char *format, uint64_t size_bytes)
{
	char size[32];

	strcpy(nbd->folder, "/tmp/ferry-nbd-XXXXXX");
	assert_non_null(mkdtemp(nbd->folder));
	snprintf(nbd->image, sizeof(nbd->image), "%s/image", nbd->folder);
	snprintf(nbd->socket, sizeof(nbd->socket), "%s/nbd", nbd->folder);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)size_bytes);
	nbd->format = format;
	nbd_qemu_img((const char *const[]){"create", "-q", "-f", format, nbd->image, size, NULL});
	nbd_serve(nbd);
}

void nbd_kill(struct nbd_fixture *nbd)
{
	nbd->child = run_free(nbd->child);
}

void nbd_signal(struct nbd_fixture *nbd, int signal)
{
	run_kill(nbd->child, signal);
}

void nbd_stop(struct nbd_fixture *nbd)
{
	nbd_kill(nbd);
	unlink(nbd->image);
	unlink(nbd->socket);
	assert_int_equal(rmdir(nbd->folder), 0);
}

struct endpoint_spec nbd_spec(const struct nbd_fixture *nbd)
{
	return (struct endpoint_spec){.kind = ENDPOINT_NBD,
		.writable = true,
		.socket_path = nbd->socket,
		.export_name = NBD_EXPORT};
}
