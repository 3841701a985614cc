/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest_find.h"

#include "agent/guest/guest_spec.h"
#include "base/alloc.h"
#include "base/io.h"
#include "base/parse.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A guest of 128 disks has some 40 KiB of arguments. */
#define MAX_ARGUMENTS ((size_t)1 << 20)

struct wanted {
	const char *uuid;
	const char *pidfile;
};

/* Whether value follows option among the NUL-ended arguments. */
static bool has_option(const struct buf *arguments, const char *option, const char *value)
{
	const char *end = arguments->data + arguments->length;
	bool follows = false;

	for (const char *at = arguments->data; at < end; at += strlen(at) + 1) {
		if (follows && strcmp(at, value) == 0)
			return true;
		follows = strcmp(at, option) == 0;
	}
	return false;
}

static bool is_wanted(pid_t pid, const struct wanted *wanted)
{
	char path[64];
	struct buf arguments CLEANUP_BUF = BUF_INIT;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) < 0 || st.st_uid != geteuid())
		return false;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (io_read_file(path, MAX_ARGUMENTS, &arguments) < 0 || !arguments.length)
		return false;
	return has_option(&arguments, "-uuid", wanted->uuid) &&
	       has_option(&arguments, "-pidfile", wanted->pidfile);
}

/* The number may have passed to another process in between, so it is looked at again once the
 * process is held. */
static int hold(pid_t pid, const struct wanted *wanted, struct child **ret_child)
{
	struct child *child = NULL;

	if (run_adopt(pid, &child, NULL) < 0)
		return 0;
	if (!is_wanted(pid, wanted) || !run_is_alive(child)) {
		run_leave(child);
		return 0;
	}
	*ret_child = child;
	return 1;
}

int guest_find_process(
	const char *uuid, const char *run_dir, struct child **ret_child, struct fault *fault)
{
	char *pidfile CLEANUP_FREE = guest_file(run_dir, GUEST_PIDFILE);
	const struct wanted wanted = {uuid, pidfile};
	DIR *processes = opendir("/proc");
	const struct dirent *entry;
	int r = 0;

	if (!processes) {
		int error = -errno;
		return fault_errno(fault, error, "cannot list the processes in /proc");
	}
	while (r == 0 && (entry = readdir(processes))) {
		uint64_t pid;
		if (parse_range(entry->d_name, 1, INT32_MAX, &pid) == 0 &&
			is_wanted((pid_t)pid, &wanted))
			r = hold((pid_t)pid, &wanted, ret_child);
	}
	closedir(processes);
	return r;
}

uint64_t guest_process_resident(pid_t pid)
{
	char path[64];
	struct buf text CLEANUP_BUF = BUF_INIT;
	unsigned long long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	if (io_read_file(path, 4096, &text) < 0 || !text.data ||
		sscanf(text.data, "%*u %llu", &pages) != 1)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
