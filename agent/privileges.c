/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/privileges.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* capset(2) for this thread, the only one; glibc has no wrapper, and one flag needs no library. */
static int set_capabilities(unsigned mask)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{.effective = mask, .permitted = mask}};

	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

struct account {
	uid_t uid;
	gid_t gid;
};

static int find_account(const char *user, struct account *ret_account, struct fault *fault)
{
	char buffer[4096];
	struct passwd entry;
	struct passwd *found = NULL;
	int error = getpwnam_r(user, &entry, buffer, sizeof(buffer), &found);

	if (error)
		return fault_errno(fault, -error, "cannot look up the user \"%s\"", user);
	if (!found)
		return fault_text(fault, -ENOENT,
			"the user \"%s\" ([ferryd] user) does not exist; create it, as with "
			"\"systemd-sysusers\" or \"useradd --system %s\", or name another one",
			user, user);
	ret_account->uid = entry.pw_uid;
	ret_account->gid = entry.pw_gid;
	return 0;
}

/* A missing directory is made and given to the user; an existing one is left as it is. */
static int make_directory(const char *path, const struct account *account, struct fault *fault)
{
	if (mkdir(path, 0700) < 0) {
		int error = -errno;
		return error == -EEXIST ? 0 : fault_errno(fault, error, "cannot make %s", path);
	}
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchown(fd, account->uid, account->gid) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot give %s to its user", path);
	}
	return 0;
}

static int become(const struct config *config, const struct account *account, struct fault *fault)
{
	bool low_port = config->listen_port > 0 && config->listen_port < 1024;

	if (low_port && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot keep the right to bind port %u",
			(unsigned)config->listen_port);
	}
	if (initgroups(config->user, account->gid) < 0 ||
		setresgid(account->gid, account->gid, account->gid) < 0 ||
		setresuid(account->uid, account->uid, account->uid) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot become the user \"%s\"", config->user);
	}
	int r = set_capabilities(low_port ? 1u << CAP_NET_BIND_SERVICE : 0);
	if (r < 0)
		return fault_errno(fault, r, "cannot give up root's rights");
	if (setuid(0) == 0)
		return fault_text(fault, -EPERM, "root's rights could be taken back; not starting");
	return 0;
}

int privileges_drop(const struct config *config, struct fault *fault)
{
	struct account account;

	if (geteuid() != 0)
		return 0;
	int r = find_account(config->user, &account, fault);
	if (r < 0)
		return r;
	if (account.uid == 0) {
		log_warn("RUNNING_AS_ROOT", "user=%s: ferryd needs no root", config->user);
		return 0;
	}
	r = make_directory(config->state_dir, &account, fault);
	if (r == 0)
		r = make_directory(config->run_dir, &account, fault);
	return r < 0 ? r : become(config, &account, fault);
}

void privileges_forget_bind(void)
{
	/* Root without another user has nothing to give up; anybody else may always have less. */
	if (geteuid() != 0 && set_capabilities(0) < 0)
		log_warn("CAPABILITIES_KEPT", "error=%s", strerror(errno));
}
