/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/signals.h"

#include "agent/config.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

int signals_open(int *ret_fd, struct fault *fault)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
		*ret_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (*ret_fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot watch for signals");
	}
	return 0;
}

static void reload_log_level(const char *config_path)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (config_load(config_path, &config, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("RELOAD_FAILED", "the log level stays as it is error=\"%s\"", text);
		return;
	}
	log_set_level(config.log_level);
	log_info("RELOADED", "log_level=%d", (int)config.log_level);
}

bool signals_take(int fd, const char *config_path)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return false;
	if (info.ssi_signo != SIGHUP) {
		log_info("STOPPING", "signal=%u from=%u", info.ssi_signo, info.ssi_pid);
		return true;
	}
	reload_log_level(config_path);
	return false;
}
