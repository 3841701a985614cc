/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ground.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files that are open besides connections: databases, images, sockets of children. */
#define OTHER_FILES 512

/* Only a warning: a daemon with few clients works with few files. */
void ground_raise_file_limit(const struct config *config)
{
	struct rlimit limit;
	rlim_t wanted = config->max_connections + OTHER_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = MIN(limit.rlim_max, wanted);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < wanted)
		log_warn("FEW_FILES",
			"limit=%llu wanted=%llu: raise LimitNOFILE, or lower "
			"max_connections",
			(unsigned long long)limit.rlim_cur, (unsigned long long)wanted);
}

int ground_ensure_directory(const char *path, const char *key, struct fault *fault)
{
	int r = io_ensure_dir(path, 0700);

	if (r == 0 && access(path, R_OK | W_OK | X_OK) < 0)
		r = -errno;
	if (r < 0)
		return fault_text(fault, r,
			"%s ([ferryd] %s) must be a directory that uid %u can write: %s", path, key,
			(unsigned)geteuid(), strerror(-r));
	return 0;
}

/* Two daemons on one directory would each take the other's migrations for dead ones. */
int ground_lock_directory(const char *dir, const char *key, int *ret_fd, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/lock", dir);
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char pid[32] = "";

	if (fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot open the lock %s", path);
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int error = -errno;
		if (error != -EWOULDBLOCK)
			return fault_errno(fault, error, "cannot lock %s", path);
		ssize_t n = read(fd, pid, sizeof(pid) - 1);
		pid[n > 0 ? n : 0] = '\0';
		pid[strspn(pid, "0123456789")] = '\0';
		return fault_text(fault, -EBUSY,
			"another ferryd (process %s) uses %s; each needs a %s of its own",
			*pid ? pid : "unknown", dir, key);
	}
	int length = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)length, 0) != length) {
		int error = -errno;
		return fault_errno(fault, error, "cannot write %s", path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}
