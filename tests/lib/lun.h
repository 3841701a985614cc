/* SPDX-License-Identifier: Apache-2.0 */
/* A real tgtd with one LUN on a fresh file, for the tests of the sender's side. It is started here
 * by hand, without the product's supervision, so that tests may freeze, kill and remake it. */
#ifndef FERRY_TESTS_LIB_LUN_H
#define FERRY_TESTS_LIB_LUN_H

#include "agent/copy/endpoint.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct lun {
	char *dir;  /* everything of it lives here */
	char *path; /* the image */
	pid_t pid;  /* tgtd */
	uint16_t port;
	uint64_t size_bytes;
};

#define LUN_IQN       "iqn.2026-01.test.ferry:disk"
#define LUN_INITIATOR "iqn.2026-01.test.ferry:sender"
#define LUN_USER      "sender"
#define LUN_SECRET    "0123456789abcdef"

/* Whether tgtd and tgtadm are installed; tests skip without. */
bool lun_is_available(void);

/* Starts tgtd and exports a sparse file of size_bytes; thin: UNMAP works. Who does not answer its
 * pings is dropped after 3 s. Ends the test process with a message when it cannot. */
void lun_start(struct lun *lun, uint64_t size_bytes, const char *serial, bool thin);
/* The same with the image in that folder; lun_start takes a tmpfs. */
void lun_start_in(
	struct lun *lun, const char *folder, uint64_t size_bytes, const char *serial, bool thin);
/* Another tgtd on the same port, after the first was killed; the image stays. */
void lun_restart(struct lun *lun, const char *serial, bool thin);
/* From now on logins are told to go to that address instead. */
void lun_set_redirect(struct lun *lun, const char *address, unsigned port);
/* From now on writes are refused (DATA PROTECT). */
void lun_set_read_only(struct lun *lun);
void lun_signal(struct lun *lun, int signal);
/* SIGKILL and reap. */
void lun_kill(struct lun *lun);
/* Kills it and removes its files. */
void lun_stop(struct lun *lun);
/* How to reach it, with that serial. */
struct endpoint_spec lun_spec(const struct lun *lun, const char *serial);

#endif
