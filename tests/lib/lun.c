/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/lun.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TGTD   "/usr/sbin/tgtd"
#define TGTADM "/usr/sbin/tgtadm"
/* What the product starts tgtd with: its allocator otherwise halves its speed. */
#define TUNABLES                                                                                   \
	"GLIBC_TUNABLES=glibc.malloc.mmap_threshold=33554432:"                                     \
	"glibc.malloc.trim_threshold=1073741824:glibc.malloc.top_pad=67108864"

static void __attribute__((noreturn, format(printf, 1, 2))) give_up(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

bool lun_is_available(void)
{
	return access(TGTD, X_OK) == 0 && access(TGTADM, X_OK) == 0;
}

/* Runs tgtadm; its output is appended to out unless NULL. Returns its exit status. */
static int __attribute__((format(printf, 3, 4)))
tgtadm(const struct lun *lun, struct buf *out, const char *format, ...)
{
	char line[4096];
	va_list args;

	va_start(args, format);
	char *options CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	char *command CLEANUP_FREE = xasprintf(
		"TGT_IPC_SOCKET=%s/s timeout 5 " TGTADM " -C 0 %s 2>&1", lun->dir, options);
	FILE *pipe = popen(command, "r");
	if (!pipe)
		give_up("popen: %s", strerror(errno));
	while (fgets(line, sizeof(line), pipe)) {
		if (out)
			buf_append_string(out, line);
	}
	return pclose(pipe);
}

static void __attribute__((format(printf, 2, 3)))
must(const struct lun *lun, const char *format, ...)
{
	struct buf out CLEANUP_BUF = BUF_INIT;
	va_list args;

	va_start(args, format);
	char *options CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	if (tgtadm(lun, &out, "%s", options) != 0)
		give_up("tgtadm %s: %s", options, out.data ? out.data : "");
}

static pid_t spawn(const struct lun *lun, uint16_t port)
{
	char *socket_env CLEANUP_FREE = xasprintf("TGT_IPC_SOCKET=%s/s", lun->dir);
	char *portal CLEANUP_FREE =
		xasprintf("portal=127.0.0.1:%u,nop_interval=1,nop_count=15", (unsigned)port);
	char *argv[] = {TGTD, "-f", "-C", "0", "-t", "4", "--iscsi", portal, NULL};
	char *env[] = {socket_env, TUNABLES, NULL};
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;
	int null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execve(TGTD, argv, env);
	_exit(127);
}

static uint16_t portal_port(const struct lun *lun)
{
	uint64_t deadline = clock_deadline(5 * USEC_PER_SEC);

	while (clock_now_usec() < deadline) {
		struct buf out CLEANUP_BUF = BUF_INIT;
		unsigned port = 0;
		if (tgtadm(lun, &out, "--lld iscsi --mode portal --op show") == 0 && out.data &&
			sscanf(out.data, "Portal: 127.0.0.1:%u", &port) == 1)
			return (uint16_t)port;
		usleep(20000);
	}
	give_up("tgtd does not answer with its portal");
}

static void export(const struct lun *lun, const char *serial, bool thin)
{
	static const char *const parameters[] = {"MaxRecvDataSegmentLength=262144",
		"MaxBurstLength=262144", "FirstBurstLength=262144", "InitialR2T=No"};

	must(lun, "--lld iscsi --mode target --op new --tid 1 -T %s", LUN_IQN);
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		char *name CLEANUP_FREE = xstrdup(parameters[i]);
		char *value = strchr(name, '=');
		*value++ = '\0';
		must(lun, "--lld iscsi --mode target --op update --tid 1 --name %s --value %s",
			name, value);
	}
	must(lun, "--lld iscsi --mode account --op new --user %s --password %s", LUN_USER,
		LUN_SECRET);
	must(lun, "--lld iscsi --mode account --op bind --tid 1 --user %s", LUN_USER);
	must(lun, "--lld iscsi --mode logicalunit --op new --tid 1 --lun 1 -b %s", lun->path);
	must(lun,
		"--lld iscsi --mode logicalunit --op update --tid 1 --lun 1 --params "
		"scsi_sn=%s,thin_provisioning=%d",
		serial, thin);
	must(lun, "--lld iscsi --mode target --op bind --tid 1 -Q %s", LUN_INITIATOR);
}

void lun_start(struct lun *lun, uint64_t size_bytes, const char *serial, bool thin)
{
	lun_start_in(lun, "/dev/shm", size_bytes, serial, thin);
}

void lun_start_in(
	struct lun *lun, const char *folder, uint64_t size_bytes, const char *serial, bool thin)
{
	char *template CLEANUP_FREE = xasprintf("%s/ferry-lun-XXXXXX", folder);

	if (!mkdtemp(template))
		give_up("mkdtemp: %s", strerror(errno));
	*lun = (struct lun){.dir = TAKE_PTR(template), .size_bytes = size_bytes};
	lun->path = xasprintf("%s/disk.img", lun->dir);
	int fd CLEANUP_CLOSE = open(lun->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0)
		give_up("%s: %s", lun->path, strerror(errno));
	lun->pid = spawn(lun, 0);
	lun->port = portal_port(lun);
	export(lun, serial, thin);
}

void lun_restart(struct lun *lun, const char *serial, bool thin)
{
	lun_kill(lun);
	lun->pid = spawn(lun, lun->port);
	if (portal_port(lun) != lun->port)
		give_up("tgtd does not listen on its former port");
	export(lun, serial, thin);
}

void lun_set_redirect(struct lun *lun, const char *address, unsigned port)
{
	static const char update[] = "--lld iscsi --mode target --op update --tid 1";

	must(lun, "%s --name RedirectAddress --value %s", update, address);
	must(lun, "%s --name RedirectPort --value %u", update, port);
	must(lun, "%s --name RedirectReason --value Temporary", update);
}

void lun_set_read_only(struct lun *lun)
{
	must(lun, "--lld iscsi --mode logicalunit --op update --tid 1 --lun 1 --params readonly=1");
}

void lun_signal(struct lun *lun, int signal)
{
	kill(lun->pid, signal);
}

void lun_kill(struct lun *lun)
{
	if (lun->pid <= 0)
		return;
	kill(lun->pid, SIGKILL);
	waitpid(lun->pid, NULL, 0);
	lun->pid = 0;
}

void lun_stop(struct lun *lun)
{
	static const char *const files[] = {"disk.img", "s.0", "s.0.lock"};

	lun_kill(lun);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", lun->dir, files[i]);
		unlink(path);
	}
	rmdir(lun->dir);
	free(lun->dir);
	free(lun->path);
	*lun = (struct lun){0};
}

struct endpoint_spec lun_spec(const struct lun *lun, const char *serial)
{
	return (struct endpoint_spec){
		.kind = ENDPOINT_ISCSI,
		.writable = true,
		.address = "127.0.0.1",
		.port = lun->port,
		.iqn = LUN_IQN,
		.initiator = LUN_INITIATOR,
		.user = LUN_USER,
		.secret = LUN_SECRET,
		.serial = serial,
		.size_bytes = lun->size_bytes,
	};
}
