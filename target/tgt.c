/* SPDX-License-Identifier: Apache-2.0 */
#include "target/tgt_internal.h"

#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/run.h"
#include "target/tgt_check.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define START_USEC    (5 * USEC_PER_SEC)
#define RETRY_USEC    (10 * USEC_PER_MSEC)
#define WATCH_USEC    USEC_PER_SEC
#define STOP_USEC     USEC_PER_SEC
#define MISSES        2
#define MAX_THREADS   64
#define MAX_FILES     1024
#define MAX_MEMORY    (UINT64_C(8) << 30)
#define SOCKET_NAME   "s"
#define SOCKET_SUFFIX ".0" /* tgtd adds "." and its control port, -C */
#define LOCK_SUFFIX   ".lock"

/* A buffer per command is allocated on arrival: with glibc's defaults those of 128 KiB and more are
 * mapped and unmapped each time, which halves the throughput (measured). */
#define MALLOC_TUNABLES                                                                            \
	"GLIBC_TUNABLES=glibc.malloc.mmap_threshold=33554432:"                                     \
	"glibc.malloc.trim_threshold=1073741824:glibc.malloc.top_pad=67108864"

struct tgt {
	struct child *child;
	char *run_dir;
	char *socket_path;
	uint16_t port;
	void (*lost)(void *arg, const char *reason);
	void *arg;
	struct cancel *stop;
	pthread_t watchdog;
	bool watched;
	pthread_mutex_t lock; /* protects the rest */
	bool is_lost;
	char *kill_reason; /* of the first kill; NULL: not killed by us */
	uint32_t *tids;    /* used once, never again */
	size_t n_tids;
};

static int check_params(const struct tgt_params *params, struct fault *fault)
{
	struct sockaddr_un address;
	size_t longest = strlen(params->run_dir) + strlen("/" SOCKET_NAME SOCKET_SUFFIX);

	if (!tgt_address_is_numeric(params->address))
		return fault_text(fault, -EINVAL,
			"iSCSI target: address \"%s\" must be a numeric IPv4 or IPv6 address, "
			"not a wildcard",
			params->address);
	if (params->run_dir[0] != '/' || longest >= sizeof(address.sun_path))
		return fault_text(fault, -EINVAL,
			"iSCSI target: run folder %s must be absolute and at most %zu characters",
			params->run_dir,
			sizeof(address.sun_path) - 1 - strlen("/" SOCKET_NAME SOCKET_SUFFIX));
	if (params->n_threads < 1 || params->n_threads > MAX_THREADS)
		return fault_text(fault, -EINVAL,
			"iSCSI target: %u threads per disk; 1 to %d are allowed", params->n_threads,
			MAX_THREADS);
	return 0;
}

static size_t fill_paths(const struct tgt_params *params, struct run_path *paths)
{
	size_t n = 0;

	paths[n++] = (struct run_path){.path = params->run_dir, .writable = true};
	for (const char *const *dir = params->image_dirs; dir && *dir; dir++)
		paths[n++] = (struct run_path){.path = *dir, .writable = true};
	return n;
}

static int start_process(struct tgt *tgt, const struct tgt_params *params, struct fault *fault)
{
	size_t n_dirs = 0;

	while (params->image_dirs && params->image_dirs[n_dirs])
		n_dirs++;
	struct run_path *paths CLEANUP_FREE = xcalloc(n_dirs + 1, sizeof(*paths));
	char *threads CLEANUP_FREE = xasprintf("%u", params->n_threads);
	bool v6 = strchr(params->address, ':');
	char *portal CLEANUP_FREE = xasprintf("portal=%s%s%s:0,nop_interval=5,nop_count=3",
		v6 ? "[" : "", params->address, v6 ? "]" : "");
	char *socket CLEANUP_FREE = xasprintf("TGT_IPC_SOCKET=%s/" SOCKET_NAME, params->run_dir);
	const char *argv[] = {
		params->program, "-f", "-C", "0", "-t", threads, "--iscsi", portal, NULL};
	const char *env[] = {MALLOC_TUNABLES, socket, NULL};

	return run_start(
		&(struct run_params){
			.argv = argv,
			.env = env,
			.paths = paths,
			.n_paths = fill_paths(params, paths),
			.max_files = MAX_FILES,
			.max_memory = MAX_MEMORY,
			.deny_connect = true,
			.log_id = "tgt.output",
		},
		&tgt->child, fault);
}

int tgt_ask(struct tgt *tgt, const struct tgt_request *request, uint64_t deadline_usec,
	struct buf *ret_text)
{
	struct tgt_mgmt mgmt = {.socket_path = tgt->socket_path, .pid = run_pid(tgt->child)};

	return tgt_mgmt_call(&mgmt, request, tgt->stop,
		MIN(deadline_usec, clock_deadline(TGT_ANSWER_USEC)), ret_text);
}

static char *describe_status(int status)
{
	if (status >= 0 && WIFEXITED(status))
		return xasprintf("tgtd ended by itself with status %d", WEXITSTATUS(status));
	if (status >= 0 && WIFSIGNALED(status))
		return xasprintf("tgtd was killed by signal %d", WTERMSIG(status));
	return xstrdup("tgtd ended");
}

static int show(struct tgt *tgt, enum tgt_mode mode, uint64_t deadline_usec, struct buf *text)
{
	return tgt_ask(tgt,
		&(struct tgt_request){.mode = mode, .op = TGT_OP_SHOW, .tid = TGT_TID_ALL},
		deadline_usec, text);
}

/* The socket appears some 40 ms after the start, in two steps (bind, listen) of which only the
 * first is an event to wait for. */
static int await_answer(
	struct tgt *tgt, uint64_t deadline_usec, struct buf *system, struct fault *fault)
{
	for (;;) {
		int r = show(tgt, TGT_MODE_SYSTEM, deadline_usec, system);
		if (r == 0)
			return 0;
		if (r > 0)
			return fault_text(fault, -EPROTO, "iSCSI target: tgtd's self-test: %s",
				tgt_error_text(r));
		if ((r != -ENOENT && r != -ECONNREFUSED) || clock_now_usec() >= deadline_usec)
			return fault_errno(
				fault, r, "iSCSI target: tgtd did not answer after its start");
		uint64_t retry = clock_deadline(RETRY_USEC);
		if (run_wait(tgt->child, MIN(retry, deadline_usec)) == 0) {
			char *reason CLEANUP_FREE = describe_status(run_status(tgt->child));
			return fault_text(fault, -EIO,
				"iSCSI target: %s while it started; its log lines say why", reason);
		}
	}
}

/* If the portal cannot be bound, tgtd listens on the wildcard instead and says nothing. */
static int prove_portal(
	struct tgt *tgt, const char *address, uint64_t deadline_usec, struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	int r = show(tgt, TGT_MODE_PORTAL, deadline_usec, &text);

	if (r != 0)
		return fault_text(fault, -EPROTO, "iSCSI target: tgtd does not tell its portal");
	if (tgt_parse_portal(text.data ? text.data : "", address, &tgt->port) == 0)
		return 0;
	for (char *c = text.data; c && *c; c++)
		if (*c == '\n')
			*c = ' ';
	return fault_text(fault, -EADDRNOTAVAIL,
		"iSCSI target: tgtd cannot listen on %s and took \"%s\" instead; is the address "
		"one of this host?",
		address, text.data ? text.data : "nothing");
}

static int prove(struct tgt *tgt, const char *address, struct fault *fault)
{
	uint64_t deadline = clock_deadline(START_USEC);
	struct buf system CLEANUP_BUF = BUF_INIT;
	struct buf targets CLEANUP_BUF = BUF_INIT;
	int r = await_answer(tgt, deadline, &system, fault);

	if (r < 0)
		return r;
	if (!system.data || !strstr(system.data, "\n    rdwr") ||
		!strstr(system.data, "    iscsi: ready"))
		return fault_text(fault, -ENOTSUP,
			"iSCSI target: this tgtd has no iSCSI driver or no rdwr back end");
	r = prove_portal(tgt, address, deadline, fault);
	if (r < 0)
		return r;
	if (show(tgt, TGT_MODE_TARGET, deadline, &targets) != 0 || targets.length > 1)
		return fault_text(fault, -EPROTO, "iSCSI target: a fresh tgtd has targets");
	return 0;
}

static void report_lost(struct tgt *tgt, const char *reason)
{
	pthread_mutex_lock(&tgt->lock);
	tgt->is_lost = true;
	char *why CLEANUP_FREE = xstrdup(tgt->kill_reason ? tgt->kill_reason : reason);
	pthread_mutex_unlock(&tgt->lock);
	log_warn("tgt.lost", "pid=%d reason=\"%s\"", (int)run_pid(tgt->child), why);
	if (tgt->lost)
		tgt->lost(tgt->arg, why);
}

/* Waits a second for its end: true when it ended. */
static bool watch_end(struct tgt *tgt)
{
	struct pollfd fd = {.fd = run_fd(tgt->child), .events = POLLIN};

	return cancel_poll(tgt->stop, &fd, 1, clock_deadline(WATCH_USEC)) > 0;
}

static void *watchdog_run(void *arg)
{
	struct tgt *tgt = arg;
	unsigned n_misses = 0;

	for (;;) {
		bool ended = watch_end(tgt);
		if (cancel_is_requested(tgt->stop))
			return NULL;
		if (ended)
			break;
		int r = show(tgt, TGT_MODE_SYSTEM, USEC_FOREVER, NULL);
		if (r == -ECANCELED)
			return NULL;
		n_misses = r == 0 ? 0 : n_misses + 1;
		if (n_misses < MISSES)
			continue;
		tgt_kill(tgt, "tgtd hung: it did not answer twice within 2 s and was killed",
			clock_deadline(STOP_USEC));
		break;
	}
	char *reason CLEANUP_FREE = describe_status(run_status(tgt->child));
	report_lost(tgt, reason);
	return NULL;
}

static int start_watchdog(struct tgt *tgt, struct fault *fault)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&tgt->watchdog, NULL, watchdog_run, tgt);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return fault_errno(fault, -r, "iSCSI target: its watchdog");
	tgt->watched = true;
	return 0;
}

int tgt_start(const struct tgt_params *params, struct tgt **ret_tgt, struct fault *fault)
{
	int r = check_params(params, fault);

	if (r < 0)
		return r;
	if (mkdir(params->run_dir, 0700) < 0)
		return fault_errno(fault, -errno, "iSCSI target: run folder %s", params->run_dir);
	struct tgt *tgt CLEANUP_TGT = xcalloc(1, sizeof(*tgt));
	pthread_mutex_init(&tgt->lock, NULL);
	tgt->stop = cancel_new();
	tgt->run_dir = xstrdup(params->run_dir);
	tgt->socket_path = xasprintf("%s/" SOCKET_NAME SOCKET_SUFFIX, params->run_dir);
	tgt->lost = params->lost;
	tgt->arg = params->arg;
	r = start_process(tgt, params, fault);
	if (r == 0)
		r = prove(tgt, params->address, fault);
	if (r == 0)
		r = start_watchdog(tgt, fault);
	if (r < 0)
		return r;
	log_info("tgt.started", "pid=%d address=%s port=%u", (int)run_pid(tgt->child),
		params->address, tgt->port);
	*ret_tgt = TAKE_PTR(tgt);
	return 0;
}

struct tgt *tgt_stop(struct tgt *tgt)
{
	if (!tgt)
		return NULL;
	cancel_request(tgt->stop, "the target is stopped");
	if (tgt->watched)
		pthread_join(tgt->watchdog, NULL);
	/* By force: SIGTERM it ignores, an order to end takes it up to half a second, and it holds
	 * nothing that its end could lose: what was acknowledged to an initiator is in the file. */
	tgt->child = run_free(tgt->child);
	int r = tgt_forget_run_dir(tgt->run_dir);
	if (r < 0)
		log_warn("tgt.leftover", "dir=%s error=\"%s\"", tgt->run_dir, strerror(-r));
	cancel_free(tgt->stop);
	pthread_mutex_destroy(&tgt->lock);
	free(tgt->run_dir);
	free(tgt->socket_path);
	free(tgt->kill_reason);
	free(tgt->tids);
	free(tgt);
	return NULL;
}

bool tgt_is_dead(struct tgt *tgt)
{
	return !run_is_alive(tgt->child);
}

int tgt_kill(struct tgt *tgt, const char *reason, uint64_t deadline_usec)
{
	if (tgt_is_dead(tgt))
		return 0;
	pthread_mutex_lock(&tgt->lock);
	if (!tgt->kill_reason)
		tgt->kill_reason = xstrdup(reason);
	pthread_mutex_unlock(&tgt->lock);
	run_kill(tgt->child, SIGKILL);
	return run_wait(tgt->child, deadline_usec);
}

int tgt_claim_tid(struct tgt *tgt, uint32_t tid)
{
	SCOPE_LOCK(&tgt->lock);
	for (size_t i = 0; i < tgt->n_tids; i++)
		if (tgt->tids[i] == tid)
			return -EEXIST;
	tgt->tids = xrealloc(tgt->tids, tgt->n_tids + 1, sizeof(*tgt->tids));
	tgt->tids[tgt->n_tids++] = tid;
	return 0;
}

pid_t tgt_pid(const struct tgt *tgt)
{
	return run_pid(tgt->child);
}

uint16_t tgt_port(const struct tgt *tgt)
{
	return tgt->port;
}

bool tgt_is_lost(struct tgt *tgt)
{
	if (tgt_is_dead(tgt))
		return true;
	SCOPE_LOCK(&tgt->lock);
	return tgt->is_lost;
}

int tgt_forget_run_dir(const char *run_dir)
{
	static const char *const names[] = {
		SOCKET_NAME SOCKET_SUFFIX,
		SOCKET_NAME SOCKET_SUFFIX LOCK_SUFFIX,
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", run_dir, names[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			return -errno;
	}
	if (rmdir(run_dir) < 0)
		return errno == ENOENT ? 0 : -errno;
	return 0;
}
