/* SPDX-License-Identifier: Apache-2.0 */
/* What one guest consists of, and the command line of its QEMU: the same spec gives the same
 * devices with the same names at the same addresses, on whatever host. */
#ifndef FERRY_AGENT_GUEST_GUEST_SPEC_H
#define FERRY_AGENT_GUEST_GUEST_SPEC_H

#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A PCI slot has eight functions: sixteen slots of disks, two of network cards. IDE has four. */
#define GUEST_MAX_DISKS  128
#define GUEST_MAX_NICS   16
#define GUEST_MAX_DRIVES 4

struct guest_disk {
	char *path;
	const char *format; /* "raw" or "qcow2", static; NULL: raw */
	char *vdi;          /* ref; NULL: unknown */
	bool read_only;
	bool direct;         /* its file system takes O_DIRECT */
	unsigned boot_index; /* from 1; 0: not to be booted from */
};

/* A CD drive. */
struct guest_drive {
	char *path;         /* NULL: empty */
	const char *format; /* as of a disk */
	unsigned boot_index;
};

/* A network card on an isolated network of its own. */
struct guest_nic {
	char *mac;
	unsigned boot_index;
};

/* All strings are owned. */
struct guest_spec {
	char *uuid;
	char *name;
	char *run_dir; /* this guest's alone: absolute, short enough for sockets in it */
	char *machine; /* its type; NULL: what QEMU calls "pc" */
	uint64_t memory_bytes;
	unsigned vcpus;
	char *kernel; /* started directly; NULL: from its disks, by firmware */
	char *ramdisk;
	char *args;
	struct guest_disk *disks; /* d0, d1 ... */
	size_t n_disks;
	struct guest_drive *drives;
	size_t n_drives;
	struct guest_nic *nics;
	size_t n_nics;
	bool reset_ends; /* the guest's own reset ends it */
	bool paused;     /* it starts when it is unpaused */
	bool incoming;   /* it waits for another QEMU's memory, and is paused then */
};

#define GUEST_SPEC_INIT                                                                            \
	{                                                                                          \
		0                                                                                  \
	}

void guest_spec_clear(struct guest_spec *spec);
/* Letters, digits, '.', '_' and '-', at most 64. */
bool guest_machine_is_name(const char *machine);
/* OPERATION_NOT_ALLOWED [text]: more devices than a guest can have; -EINVAL: no machine type. */
int guest_spec_check(const struct guest_spec *spec, struct fault *fault);

/* NULL-terminated; the caller frees it with guest_argv_free. accelerator: as -accel names it. */
char **guest_argv_new(const struct guest_spec *spec, const char *program, const char *accelerator);
char **guest_argv_free(char **argv);

/* Files in run_dir; the caller frees the path. */
#define GUEST_QMP          "qmp"
#define GUEST_QMP_SPARE    "qmp2" /* a second monitor, for a watchdog or a person */
#define GUEST_CONSOLE      "console"
#define GUEST_LOG          "console.log"
#define GUEST_PIDFILE      "pid"
#define GUEST_OUTPUT       "qemu.log"
#define GUEST_NBD          "nbd"      /* of the NBD server inside QEMU (guest_nbd.h) */
#define GUEST_MEMORY       "memory"   /* where memory is taken from, or given to, when it moves */
#define GUEST_WATCHDOG     "watchdog" /* socket */
#define GUEST_WATCHDOG_LOG "watchdog.log"
char *guest_file(const char *run_dir, const char *name);

#define CLEANUP_GUEST_SPEC CLEANUP(guest_spec_clear)

#endif
