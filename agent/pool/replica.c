/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/replica.h"

#include "base/alloc.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* For one call: the coordinator makes the copy meanwhile. */
#define CALL_USEC (30 * USEC_PER_SEC)

struct replica {
	struct replica_params params;
	char *state_dir;
	bool is_failing;
	struct cancel *closing;
	pthread_t thread;
};

char *replica_path(const char *state_dir)
{
	return xasprintf("%s/pool.copy.db", state_dir);
}

int replica_time(const char *state_dir, int64_t *ret_time, struct fault *fault)
{
	char *path CLEANUP_FREE = replica_path(state_dir);
	struct stat st;

	if (stat(path, &st) < 0 && errno == ENOENT)
		return 0;
	if (stat(path, &st) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot look at %s", path);
	}
	*ret_time = st.st_mtim.tv_sec;
	return 1;
}

int replica_remove(const char *state_dir, struct fault *fault)
{
	char *path CLEANUP_FREE = replica_path(state_dir);
	char *fresh CLEANUP_FREE = xasprintf("%s.new", path);

	unlink(fresh);
	if (unlink(path) < 0 && errno != ENOENT) {
		int error = -errno;
		return fault_errno(fault, error, "cannot remove %s", path);
	}
	return 0;
}

/* --- Fetching ----------------------------------------------------------------------------------
 */

struct fetch {
	struct link *link;
	struct cancel *cancel;
	uint64_t deadline_usec;
	char *path;
	struct timespec asked; /* what was committed before is in the copy */
	char *id;
	bool is_there; /* already: there is no size */
	int64_t size;
};

static void fetch_clear(struct fetch *fetch)
{
	free(fetch->path);
	free(fetch->id);
}

static uint64_t patience(const struct fetch *fetch)
{
	uint64_t now = clock_now_usec();

	return now < fetch->deadline_usec ? MIN(fetch->deadline_usec - now, CALL_USEC) : 0;
}

static int ask(struct fetch *fetch, const char *have, bool now, struct fault *fault)
{
	struct value *offer CLEANUP_VALUE = NULL;
	struct value *args = value_append_string(value_new_array(), have);

	clock_gettime(CLOCK_REALTIME, &fetch->asked);
	int r = link_call(fetch->link, "copy_offer", value_append(args, value_new_bool(now)),
		patience(fetch), fetch->cancel, &offer, fault);
	if (r < 0)
		return r;
	fetch->id = xstrdup(value_find_string(offer, "id", ""));
	const char *size = value_find_string(offer, "size", NULL); /* as XML-RPC has it */
	fetch->is_there = !size;
	if (size && (parse_int64(size, &fetch->size) < 0 || fetch->size <= 0))
		return fault_text(
			fault, -EBADMSG, "the coordinator offers a copy of \"%s\" bytes", size);
	return 0;
}

static int read_piece(struct fetch *fetch, int64_t offset, struct buf *piece, struct fault *fault)
{
	struct value *text CLEANUP_VALUE = NULL;
	struct value *args = value_append_string(value_new_array(), fetch->id);
	int r = link_call(fetch->link, "copy_read", value_append(args, value_new_int(offset)),
		patience(fetch), fetch->cancel, &text, fault);

	if (r < 0)
		return r;
	if (base64_decode(value_string(text, ""), piece) < 0 || piece->length == 0 ||
		(int64_t)piece->length > fetch->size - offset)
		return fault_text(fault, -EBADMSG,
			"the coordinator's copy came damaged at byte %" PRId64, offset);
	return 0;
}

static int receive(struct fetch *fetch, int fd, struct fault *fault)
{
	int64_t offset = 0;

	while (offset < fetch->size) {
		struct buf piece CLEANUP_BUF = BUF_INIT;
		int r = read_piece(fetch, offset, &piece, fault);
		if (r < 0)
			return r;
		r = io_write_full(fd, piece.data, piece.length);
		if (r < 0)
			return fault_errno(fault, r, "cannot write %s", fetch->path);
		offset += (int64_t)piece.length;
	}
	return 0;
}

static int put(struct fetch *fetch, int fd, const char *fresh, struct fault *fault)
{
	const struct timespec times[] = {fetch->asked, fetch->asked};
	int r = futimens(fd, times) < 0 || fsync(fd) < 0 || rename(fresh, fetch->path) < 0 ? -errno
											   : 0;

	if (r == 0)
		r = io_sync_parent(fetch->path);
	return r < 0 ? fault_errno(fault, r, "cannot store %s", fetch->path) : 0;
}

static int fetch_all(struct fetch *fetch, struct fault *fault)
{
	char *fresh CLEANUP_FREE = xasprintf("%s.new", fetch->path);

	unlink(fresh); /* of a run that died */
	int fd CLEANUP_CLOSE = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot make %s", fresh);
	}
	int r = receive(fetch, fd, fault);
	if (r == 0)
		r = put(fetch, fd, fresh, fault);
	if (r < 0)
		unlink(fresh);
	return r;
}

/* The thread and who wants it now: the file is written by one, and never replaced by an older. */
static pthread_mutex_t fetching = PTHREAD_MUTEX_INITIALIZER;
/* What this run has put there; under the lock. */
static struct {
	char *path;
	char *id;
} kept;

static const char *kept_id(const char *path)
{
	return kept.path && strcmp(kept.path, path) == 0 ? kept.id : "";
}

static void keep(struct fetch *fetch)
{
	free(kept.path);
	free(kept.id);
	kept.path = xstrdup(fetch->path);
	kept.id = TAKE_PTR(fetch->id);
}

/* Still what the coordinator has. That this may be lost makes it look too old. */
static int renew(struct fetch *fetch, struct fault *fault)
{
	const struct timespec times[] = {fetch->asked, fetch->asked};

	if (utimensat(AT_FDCWD, fetch->path, times, 0) == 0)
		return 0;
	int error = -errno;
	/* Somebody removed it: fetched again. */
	free(TAKE_PTR(kept.path));
	return fault_errno(fault, error, "cannot find %s", fetch->path);
}

static int fetch_locked(struct fetch *fetch, bool now, struct fault *fault)
{
	int r = ask(fetch, kept_id(fetch->path), now, fault);

	if (r < 0)
		return r;
	if (fetch->is_there)
		return renew(fetch, fault);
	r = fetch_all(fetch, fault);
	if (r < 0)
		return r;
	log_debug("POOL_COPY", "id=%s bytes=%" PRId64, fetch->id, fetch->size);
	keep(fetch);
	return 0;
}

/* now: what was committed before is in it; else it may be half as old as members' copies are. */
static int fetch_newer(struct link *link, const char *state_dir, bool now, uint64_t timeout_usec,
	struct cancel *cancel, struct fault *fault)
{
	struct fetch fetch CLEANUP(fetch_clear) = {.link = link,
		.cancel = cancel,
		.deadline_usec = clock_deadline(timeout_usec),
		.path = replica_path(state_dir)};
	const struct timespec until = {.tv_sec = (time_t)(fetch.deadline_usec / USEC_PER_SEC),
		.tv_nsec = (long)(fetch.deadline_usec % USEC_PER_SEC) * 1000};

	int r = -pthread_mutex_clocklock(&fetching, CLOCK_MONOTONIC, &until);
	if (r < 0)
		return fault_errno(fault, r, "another copy of the database is on its way");
	r = fetch_locked(&fetch, now, fault);
	pthread_mutex_unlock(&fetching);
	return r;
}

int replica_fetch(struct link *link, const char *state_dir, uint64_t timeout_usec,
	struct cancel *cancel, struct fault *fault)
{
	return fetch_newer(link, state_dir, true, timeout_usec, cancel, fault);
}

/* --- The thread --------------------------------------------------------------------------------
 */

/* A coordinator that is away is told of by who ticks it. */
static void note(struct replica *replica, int r, const struct fault *fault)
{
	bool is_failing = r < 0 && !fault_is(fault, "CANNOT_CONTACT_HOST");

	if (r == -ECANCELED || is_failing == replica->is_failing)
		return;
	replica->is_failing = is_failing;
	char *text CLEANUP_FREE = is_failing ? fault_describe(fault) : NULL;
	if (is_failing)
		log_warn("POOL_COPY_FAILED",
			"error=\"%s\": the copy of the pool's database gets older", text);
	else if (r == 0)
		log_info("POOL_COPY_KEPT", "the copy of the pool's database is kept up again");
}

static void *replica_main(void *arg)
{
	struct replica *replica = arg;

	do {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		int r = fetch_newer(replica->params.link, replica->state_dir, false, USEC_FOREVER,
			replica->closing, &fault);
		note(replica, r, &fault);
	} while (cancel_sleep(replica->closing, replica->params.interval_usec / 2) == 0);
	return NULL;
}

int replica_start(
	const struct replica_params *params, struct replica **ret_replica, struct fault *fault)
{
	struct replica *replica = xcalloc(1, sizeof(*replica));
	sigset_t all, before;

	replica->params = *params;
	replica->state_dir = xstrdup(params->state_dir);
	replica->closing = cancel_new();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&replica->thread, NULL, replica_main, replica);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		cancel_free(replica->closing);
		free(replica->state_dir);
		free(replica);
		return fault_errno(fault, r, "cannot start the thread that copies the database");
	}
	*ret_replica = replica;
	return 0;
}

struct replica *replica_stop(struct replica *replica)
{
	if (!replica)
		return NULL;
	cancel_request(replica->closing, "the agent is stopping");
	pthread_join(replica->thread, NULL);
	cancel_free(replica->closing);
	free(replica->state_dir);
	free(replica);
	return NULL;
}
