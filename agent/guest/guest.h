/* SPDX-License-Identifier: Apache-2.0 */
/* One running QEMU. It outlives the agent: guest_free leaves it running, guest_find finds it again.
 *
 * It runs as the agent's user, with QEMU's own system call filter and confined to its run folder
 * and disks, and is believed nothing: the process's end is what the kernel says, and a QEMU that
 * breaks the monitor's protocol, or closes it, while it runs on is killed. */
#ifndef FERRY_AGENT_GUEST_GUEST_H
#define FERRY_AGENT_GUEST_GUEST_H

#include "agent/guest/guest_spec.h"
#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct guest;

/* Both are called from the guest's own threads; they must not call guest_* and may be NULL. */
struct guest_callbacks {
	/* Once, when the process has ended: why, in one line. Not after guest_free has begun. */
	void (*ended)(void *arg, const char *reason);
	/* An event of the monitor (STOP, RESUME, RESET, SHUTDOWN ...). */
	void (*event)(void *arg, const char *name, const struct value *data);
	void *arg;
};

/* Makes the run folder (-EEXIST: guest_forget_run_dir removes what is left there), starts QEMU and
 * proves it: the monitor answers, from that process, for that uuid. Blocks up to 20 s, less when
 * cancelled. After a failure no process runs; the folder may be there. */
int guest_start(const struct guest_spec *spec, const char *program,
	const struct guest_callbacks *callbacks, const struct cancel *cancel,
	struct guest **ret_guest, struct fault *fault);

/* Finds the QEMU that an earlier agent started with that uuid and run folder: 1, or 0 when there is
 * none. One whose monitor does not answer counts, as it may write to its disks; the connection is
 * tried again until it is made. */
int guest_find(const char *uuid, const char *run_dir, const struct guest_callbacks *callbacks,
	struct guest **ret_guest, struct fault *fault);

/* The process stays, unless it has ended. NULL is fine; returns NULL. */
struct guest *guest_free(struct guest *guest);
/* Removes what QEMU made there, and the folder. 0 if nothing is there. Only after its end. */
int guest_forget_run_dir(const char *run_dir);

pid_t guest_pid(const struct guest *guest);
/* The guest's own. */
const char *guest_run_dir(const struct guest *guest);
bool guest_is_alive(struct guest *guest);
/* Bytes of its memory that it really has now; 0 when unknown. */
uint64_t guest_resident_bytes(const struct guest *guest);

/* How processors are made, "kvm" or "tcg": of a guest that is started here now, and of this one. A
 * guest that began with the one cannot go on with the other. */
const char *guest_accelerator(void);
int guest_ask_accelerator(struct guest *guest, const struct cancel *cancel,
	const char **ret_accelerator, struct fault *fault);

/* The type of its machine, as "pc-i440fx-7.2"; the caller frees it. */
int guest_ask_machine(
	struct guest *guest, const struct cancel *cancel, char **ret_machine, struct fault *fault);
/* Whether the program can be such a machine: -EOPNOTSUPP when not. scratch: a file that is made and
 * removed. Blocks while the program is asked, some 50 ms. */
int guest_check_machine(
	const char *program, const char *scratch, const char *machine, struct fault *fault);

/* One monitor command within 5 s. See qmp_call for errors. */
int guest_command(struct guest *guest, const char *command, const struct value *arguments,
	const struct cancel *cancel, struct value **ret_value, struct fault *fault);
/* The same with a deadline of the caller's. */
int guest_command_until(struct guest *guest, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault);
/* The same, within 5 s, with an open file that goes along: see qmp_call_fd. */
int guest_command_fd(struct guest *guest, const char *command, const struct value *arguments,
	int fd, struct value **ret_value, struct fault *fault);
/* Out of band, within 5 s: see qmp_call_oob. */
int guest_command_oob(struct guest *guest, const char *command, const struct value *arguments,
	struct value **ret_value, struct fault *fault);
/* Whether its processors run. */
int guest_is_running(struct guest *guest, bool *ret_is_running, struct fault *fault);
int guest_pause(struct guest *guest, struct fault *fault);
int guest_unpause(struct guest *guest, struct fault *fault);
/* The same; one that runs is left alone. */
int guest_let_run(struct guest *guest, struct fault *fault);
int guest_reset(struct guest *guest, struct fault *fault);
/* Presses the power button; what the guest makes of it shows later, or never. */
int guest_powerdown(struct guest *guest, struct fault *fault);
/* Ends it at once: it is asked to quit, and killed when it does not within 2 s. Blocks until the
 * process is gone; -ETIMEDOUT: it hangs in the kernel after SIGKILL. */
int guest_kill(struct guest *guest, struct fault *fault);

/* The guest's events as a queue of one reader, from now on; any number of them. After the guest's
 * end comes one more, "ENDED", also to a watch that is made later. Events beyond 256 unread ones
 * push out the oldest. A watch may outlive its guest. */
struct guest_watch;

struct guest_watch *guest_watch_new(struct guest *guest);
struct guest_watch *guest_watch_free(struct guest_watch *watch);
/* Readable while there are events. */
int guest_watch_fd(const struct guest_watch *watch);
/* The next event, if any: its name (the caller frees it), data (may be NULL; the caller frees it)
 * and when it came (clock_now_usec). */
bool guest_watch_take(
	struct guest_watch *watch, char **ret_name, struct value **ret_data, uint64_t *ret_usec);

DEFINE_CLEANUP(struct guest_watch *, guest_watch_free)
#define CLEANUP_GUEST_WATCH CLEANUP(cleanup_guest_watch_free)

DEFINE_CLEANUP(struct guest *, guest_free)
#define CLEANUP_GUEST CLEANUP(cleanup_guest_free)

#endif
