/* SPDX-License-Identifier: Apache-2.0 */
#include "base/run_confine.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's interface is versioned by number, so what is newer than the headers that this is
 * built with is named here. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14) /* ABI 3 */
#endif
#define NET_CONNECT_TCP     (1ULL << 1) /* ABI 4 */
#define SCOPE_ABSTRACT_UNIX (1ULL << 0) /* ABI 6 */
#define SCOPE_SIGNAL        (1ULL << 1) /* ABI 6 */

struct ruleset_attr {
	uint64_t handled_access_fs;
	uint64_t handled_access_net;
	uint64_t scoped;
};

#define ACCESS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define ACCESS_WRITE                                                                               \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE |                             \
		LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                   \
		LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                        \
		LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |                      \
		LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)
/* Handled (so: forbidden) but granted by no rule: making device nodes. */
#define ACCESS_ALL                                                                                 \
	(ACCESS_READ | ACCESS_WRITE | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |  \
		LANDLOCK_ACCESS_FS_MAKE_BLOCK)
/* The only rights that a rule on something that is not a directory may name. */
#define ACCESS_FILE                                                                                \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
		LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_TRUNCATE)

/* Libraries, the dynamic loader (which execve opens for execution) and programs' own data: nothing
 * secret, nothing of another job. */
static const struct {
	const char *path;
	uint64_t access;
} system_rules[] = {
	{"/usr", ACCESS_READ | LANDLOCK_ACCESS_FS_EXECUTE},
	{"/lib", ACCESS_READ | LANDLOCK_ACCESS_FS_EXECUTE},
	{"/lib64", ACCESS_READ | LANDLOCK_ACCESS_FS_EXECUTE},
	{"/etc/ld.so.cache", ACCESS_READ},
	{"/dev/null", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE},
};

static int landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi < 0 ? 0 : (int)abi;
}

static uint64_t handled_access(int abi)
{
	uint64_t access = ACCESS_ALL;

	if (abi < 2)
		access &= ~(uint64_t)LANDLOCK_ACCESS_FS_REFER;
	if (abi < 3)
		access &= ~(uint64_t)LANDLOCK_ACCESS_FS_TRUNCATE;
	return access;
}

static int add_rule(int ruleset_fd, const char *path, uint64_t access)
{
	int fd CLEANUP_CLOSE = open(path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		access &= ACCESS_FILE;
	struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
	if (syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return -errno;
	return 0;
}

static int create_ruleset(const struct run_params *params, int abi)
{
	struct ruleset_attr attr = {.handled_access_fs = handled_access(abi)};
	size_t size = sizeof(attr.handled_access_fs);

	if (abi >= 4) {
		attr.handled_access_net = params->deny_connect ? NET_CONNECT_TCP : 0;
		size = offsetof(struct ruleset_attr, scoped);
	}
	if (abi >= 6) {
		attr.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
		size = sizeof(attr);
	}
	long fd = syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	return fd < 0 ? -errno : (int)fd;
}

static void warn_once(void)
{
	static bool warned;

	if (!__atomic_exchange_n(&warned, true, __ATOMIC_RELAXED))
		log_warn("run.no_landlock", "this kernel has no Landlock: child processes are "
					    "confined by their user only");
}

int confine_prepare(const struct run_params *params, int *ret_fd, struct fault *fault)
{
	int abi = landlock_abi();
	int r;

	if (params->n_paths == 0 || abi == 0) {
		if (params->n_paths)
			warn_once();
		*ret_fd = -1;
		return 0;
	}
	uint64_t handled = handled_access(abi);
	int fd CLEANUP_CLOSE = create_ruleset(params, abi);
	if (fd < 0)
		return fault_errno(fault, fd, "start of %s: Landlock ruleset", params->argv[0]);
	for (size_t i = 0; i < ARRAY_SIZE(system_rules); i++) {
		r = add_rule(fd, system_rules[i].path, system_rules[i].access & handled);
		if (r < 0 && r != -ENOENT)
			return fault_errno(fault, r, "start of %s: Landlock rule for %s",
				params->argv[0], system_rules[i].path);
	}
	r = add_rule(
		fd, params->argv[0], LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
	if (r < 0)
		return fault_errno(fault, r, "start of %s", params->argv[0]);
	for (size_t i = 0; i < params->n_paths; i++) {
		const struct run_path *path = &params->paths[i];
		uint64_t access = path->writable ? ACCESS_READ | ACCESS_WRITE : ACCESS_READ;
		r = add_rule(fd, path->path, access & handled);
		if (r < 0)
			return fault_errno(fault, r, "start of %s: Landlock rule for %s",
				params->argv[0], path->path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int confine_enter(int ruleset_fd)
{
	return syscall(SYS_landlock_restrict_self, ruleset_fd, 0) < 0 ? -errno : 0;
}
