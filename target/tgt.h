/* SPDX-License-Identifier: Apache-2.0 */
/* One tgtd process: started, watched, asked through its management socket, stopped.
 *
 * tgtd is a black box that a logged-in peer can freeze or crash, so every incoming migration has
 * its own, confined to that migration's files. The management protocol (tgt 1.0.85, usr/tgtadm.h)
 * is spoken directly with deadlines; a call that fails or does not answer never counts as done. */
#ifndef FERRY_TARGET_TGT_H
#define FERRY_TARGET_TGT_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tgt;

struct tgt_params {
	const char *program; /* /usr/sbin/tgtd */
	const char *run_dir; /* made (0700) for this process alone; socket path must stay short */
	const char *address; /* numeric IP the portal binds; the port is the system's choice */
	const char *const *image_dirs; /* NULL-terminated: folders and files it may use */
	unsigned n_threads;            /* tgtd -t, per LUN: 1..64 */
	/* Called once, from a thread of this module, when the process died or was killed because it
	 * hung (two missed answers of 2 s); not after tgt_stop, which it must not call. May be
	 * NULL. */
	void (*lost)(void *arg, const char *reason);
	void *arg;
};

/* Starts tgtd and proves it: alive, answers, knows "rdwr", its only portal is exactly address:port
 * (not the wildcard it falls back to), no target. Blocks up to 5 s. -EEXIST: run_dir is there;
 * tgt_forget_run_dir removes what a dead agent left. -EADDRNOTAVAIL: the address is not ours. */
int tgt_start(const struct tgt_params *params, struct tgt **ret_tgt, struct fault *fault);
/* Ends it at once, whatever it exports (SIGKILL), and removes run_dir. NULL is fine. */
struct tgt *tgt_stop(struct tgt *tgt);

pid_t tgt_pid(const struct tgt *tgt);
uint16_t tgt_port(const struct tgt *tgt);
bool tgt_is_lost(struct tgt *tgt);

/* Removes what a dead agent's tgtd left in run_dir (socket, lock, the folder). 0 if nothing is
 * there. */
int tgt_forget_run_dir(const char *run_dir);

DEFINE_CLEANUP(struct tgt *, tgt_stop)
#define CLEANUP_TGT CLEANUP(cleanup_tgt_stop)

#endif
