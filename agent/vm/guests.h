/* SPDX-License-Identifier: Apache-2.0 */
/* The guests of this host: what runs, and the operations that start, pause and end it. The database
 * follows the processes: one that ends by itself makes its VM Halted within a second. Guests
 * outlive the agent. */
#ifndef FERRY_AGENT_VM_GUESTS_H
#define FERRY_AGENT_VM_GUESTS_H

#include "agent/guest/guest.h"
#include "agent/storage/storage.h"
#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>
#include <stdint.h>

struct guests;

/* storage is borrowed for the guests' life, strings are copied. */
struct guests_params {
	const struct storage *storage;
	const char *run_dir;    /* guests' run folders are made in its folder "guests" */
	const char *program;    /* qemu-system-x86_64 */
	uint64_t shutdown_usec; /* how long a guest may take to shut down; 0: 120 s */
	/* This host's memory in bytes. */
	void (*memory)(int64_t *ret_total_bytes, int64_t *ret_free_bytes);
	/* The database is older than the processes: what runs here, runs, whatever it says. */
	bool is_doubtful;
};

/* Makes the folder. */
int guests_new(const struct guests_params *params, struct guests **ret_guests, struct fault *fault);
/* Once, before anything else: takes in the guests that an earlier agent left, ends those whose VM
 * is not to run, makes the VMs of those that are gone Halted. One that a migration brought is told
 * to run if its VM was committed, and otherwise left to the migration. Blocks; a few seconds for
 * each QEMU that does not answer. */
int guests_recover(struct guests *guests, struct fault *fault);
/* Of a doubtful database: it has a VM for each guest that runs here. The others run on for as long
 * as it is doubtful. */
bool guests_are_known(const struct guests *guests);
/* Ends waits for guests that shut down; nothing new begins. Does not block. */
void guests_close(struct guests *guests);
/* After every operation has returned. The guests run on. NULL is fine; returns NULL. */
struct guests *guests_free(struct guests *guests);

/* One operation of XenAPI on a VM: "start", "start_on", "pause", "unpause", "clean_shutdown",
 * "hard_shutdown", "clean_reboot", "hard_reboot". */
struct guests_request {
	const char *vm;
	const char *operation;
	const char *key;             /* its mark in VM.current_operations: a task's ref */
	bool start_paused;           /* of start and start_on */
	const struct cancel *cancel; /* may be NULL */
};

/* Blocks until it is done: up to 20 s, for clean_* as long as the guest may take. Faults of
 * vm_check_operation and of guest_record.h, VDI_IN_USE [vdi, operation],
 * HOST_NOT_ENOUGH_FREE_MEMORY [needed, available], VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT [vm],
 * TASK_CANCELLED [task]. After a failed start the VM is Halted and nothing is left of it. */
int guests_do(struct guests *guests, const struct guests_request *request, struct fault *fault);

/* --- For migrations ------------------------------------------------------------------------------
 */

struct resident; /* a guest that runs here, held for the caller */

/* Calls fn with each guest of this host that has started, held meanwhile, one after the other: one
 * that waits for the memory of a VM that moves here too. */
void guests_each(
	struct guests *guests, void (*fn)(void *arg, struct resident *resident), void *arg);
/* The guest of a VM that runs here; NULL when none does. To be released. */
struct resident *guests_hold(struct guests *guests, const char *vm);
/* What a guest does while its VM has the mark of a move or snapshot (vm_may_be_stopped) is not
 * stored as a pause; it is from here on, so the mark goes first. NULL is fine; returns NULL. */
struct resident *guests_release(struct resident *resident);
struct guest *resident_guest(struct resident *resident);
const char *resident_run_dir(const struct resident *resident);

/* Ends the guest for good, as its VM runs elsewhere now: the process is gone when it returns 0. The
 * VM's row is not touched, nor need it exist. Fine when none runs. */
int guests_end(struct guests *guests, const char *vm, const char *vm_uuid, struct fault *fault);

/* Where the console of the guest of that uuid is, if one runs here, whether the database has its VM
 * or not; NULL: none does. The caller frees it. Asks the process. */
char *guests_running_console(struct guests *guests, const char *vm_uuid);

/* Whether QEMU here can be a machine of that type: guest_check_machine. */
int guests_check_machine(struct guests *guests, const char *machine, struct fault *fault);
/* Whether the host could start it: HOST_NOT_ENOUGH_FREE_MEMORY [needed, available], or no QEMU. */
int guests_check_room(struct guests *guests, const struct guest_spec *spec, struct fault *fault);
/* The destination of a move: a QEMU that waits for the memory (-incoming defer -S), journalled
 * under the migration. spec's run_dir is set here; its disks exist. HOST_NOT_ENOUGH_FREE_MEMORY. An
 * earlier one of the same migration is ended first. */
int guests_start_incoming(struct guests *guests, const char *migration, struct guest_spec *spec,
	const struct cancel *cancel, struct resident **ret_resident, struct fault *fault);
/* The one that waits, or has the memory and is paused; also one that an earlier agent started. NULL
 * when there is none or its QEMU has ended. To be released. */
struct resident *guests_find_incoming(struct guests *guests, const char *migration);
/* Why the one that there was has ended, in QEMU's words if it had some; NULL when there is none, or
 * it has not. The caller frees it. */
char *guests_incoming_end(struct guests *guests, const char *migration);
/* Whether it has the whole memory. */
bool resident_has_memory(struct resident *resident);
/* Waits for that, and checks that it is paused: 0, -ETIMEDOUT, -ECANCELED, -ESRCH: its QEMU has
 * ended; with a fault. */
int resident_await_memory(struct resident *resident, uint64_t deadline_usec,
	const struct cancel *cancel, struct fault *fault);
/* Kills it and removes what is left of it: its QEMU is dead when it returns 0. Fine when there is
 * none. */
int guests_end_incoming(struct guests *guests, const char *migration, struct fault *fault);
/* What guest_running (guest_state.h) says of it once it runs. */
int64_t guests_take_domid(struct guests *guests);
/* The VM was imported as Running on this host, in the transaction of the commit: it becomes a guest
 * like any other, and is told to run. Idempotent, also over a restart of the agent (guests_recover
 * does it too). *ret_resumed_usec: when it ran (clock_now_usec); 0 when that was earlier. -ESRCH:
 * its QEMU is dead: the VM is made Halted. */
int guests_take_over(struct guests *guests, const char *migration, const char *vm,
	uint64_t *ret_resumed_usec, struct fault *fault);

DEFINE_CLEANUP(struct resident *, guests_release)
#define CLEANUP_GUESTS_RESIDENT CLEANUP(cleanup_guests_release)

DEFINE_CLEANUP(struct guests *, guests_free)
#define CLEANUP_GUESTS CLEANUP(cleanup_guests_free)

#endif
