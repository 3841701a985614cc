/* SPDX-License-Identifier: Apache-2.0 */
/* What the database says of a VM that runs, and of its devices. Each call is one transaction. A
 * VM's disks are its own from the moment at which its start is allowed until it is halted: that is
 * VBD.currently_attached. */
#ifndef FERRY_AGENT_VM_GUEST_STATE_H
#define FERRY_AGENT_VM_GUEST_STATE_H

#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdbool.h>
#include <stdint.h>

/* Checks that the operation may begin (vm_check_operation), and marks it under key. With attach
 * also takes the VM's devices: VDI_IN_USE [vdi, operation] when another VM, or a migration, has a
 * disk. */
struct guest_begin {
	const char *vm;
	const char *operation;
	const char *key;
	bool attach;
	const char *host_ref; /* with attach: where it is to run */
};

int guest_state_begin(struct pool_db *pool, const struct guest_begin *begin, struct fault *fault);
/* Only takes the devices: for a second start within one operation. */
int guest_state_attach(
	struct pool_db *pool, const char *vm, const char *operation, struct fault *fault);
int guest_state_end(struct pool_db *pool, const char *vm, const char *key, struct fault *fault);

/* It runs: Running, or Paused, with its console. */
struct guest_running {
	const char *vm;
	const char *host_ref;
	const char *console_path;
	int64_t domid;
	bool is_paused;
};

int guest_state_started(
	struct pool_db *pool, const struct guest_running *running, struct fault *fault);
/* host_ref: whose guest it is. What becomes of it says nothing of a VM that another host of the
 * pool has by now: then nothing is changed.
 *
 * Running or Paused, if it is not that already. Nothing while the VM moves: it is stopped for a
 * moment then, which is nobody's pause. */
int guest_state_set_paused(struct pool_db *pool, const char *vm, const char *host_ref,
	bool is_paused, struct fault *fault);
/* It does not run: Halted, devices detached, console gone. Repeating it, and a VM that is gone, are
 * fine. */
int guest_state_halted(
	struct pool_db *pool, const char *vm, const char *host_ref, struct fault *fault);
/* The same after the agent's start, when no operation of a guest can be under way: takes their
 * marks away too. */
int guest_state_forget_marks(struct pool_db *pool, const char *vm, struct fault *fault);

#endif
