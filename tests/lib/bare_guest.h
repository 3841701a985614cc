/* SPDX-License-Identifier: Apache-2.0 */
/* A real QEMU without an agent and without a system on its disks: it runs firmware, which leaves
 * the disks alone. What a guest would write is written through the device's own path by the monitor
 * (qemu-io). */
#ifndef FERRY_TESTS_LIB_BARE_GUEST_H
#define FERRY_TESTS_LIB_BARE_GUEST_H

#include "tests/lib/check.h"

#include "agent/guest/guest.h"
#include "base/value.h"

#include <sys/types.h>

#define BARE_GUEST_DISKS 4

struct bare_guest {
	char folder[64]; /* of disks and run folder; "" while there is none */
	struct guest_spec spec;
	struct guest *guest;
	bool has_foreign_disks;
};

struct bare_guest_params {
	size_t n_disks;
	uint64_t disk_bytes;
	uint64_t memory_bytes;           /* 0: 16 MiB */
	bool is_paused;                  /* never runs */
	bool has_qcow2;                  /* the last of its disks */
	const struct bare_guest *source; /* it waits for that one's memory, on its disks */
};

/* Makes folder and disks, and starts it. */
void bare_guest_start(struct bare_guest *bare, const struct bare_guest_params *params);
/* As an agent that starts anew: the struct guest is made anew, QEMU stays. */
void bare_guest_find(struct bare_guest *bare);
/* Kills it with SIGKILL and waits for its end. */
void bare_guest_kill(struct bare_guest *bare);
/* Kills it, removes all. Also one that was never started. */
void bare_guest_clear(struct bare_guest *bare);

/* One command, which must succeed; the caller frees the answer. */
struct value *bare_guest_ask(struct bare_guest *bare, const char *command,
	const char *arguments_format, ...) __attribute__((format(printf, 3, 4)));
/* The same without an answer; arguments NULL: none. */
void bare_guest_do(struct bare_guest *bare, const char *command, const char *arguments_format, ...)
	__attribute__((format(printf, 3, 4)));
/* A command of qemu-io ("write -P 1 0 64k") through the device of that disk. */
void bare_guest_io(struct bare_guest *bare, size_t disk, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool bare_guest_is_running(struct bare_guest *bare);

#endif
