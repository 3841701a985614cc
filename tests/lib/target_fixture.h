/* SPDX-License-Identifier: Apache-2.0 */
/* A tgtd, image files and an initiator for the tests of target/. */
#ifndef FERRY_TESTS_LIB_TARGET_FIXTURE_H
#define FERRY_TESTS_LIB_TARGET_FIXTURE_H

#include "target/export.h"
#include "target/tgt.h"

#include <iscsi/iscsi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TGTD      "/usr/sbin/tgtd"
#define MIB       (UINT64_C(1) << 20)
#define SIZE      (16 * MIB)
#define IQN       "iqn.2026-08.org.ferry:test"
#define INITIATOR "iqn.2026-08.org.ferry:sender"
#define USER      "d0.test"
#define SECRET    "secret,with=all %sorts\" of.it"
#define SERIAL    "0123456789abcdef-d0-g1"

struct fixture {
	char dir[64];
	char *run_dir;
	char *images; /* folder */
	char *image;  /* a file of SIZE bytes in it */
	struct tgt *tgt;
	int n_lost; /* calls of the callback */
	char reason[256];
};

/* Group setup: tests run as production does, without privileges. */
int fixture_drop_privileges(void **state);
/* Test setup and teardown: *state becomes a struct fixture with an image and no tgtd. */
int fixture_setup(void **state);
/* The same with a tgtd on 127.0.0.1. */
int fixture_setup_tgt(void **state);
int fixture_teardown(void **state);

int fixture_start(struct fixture *fixture, const char *address, struct fault *fault);
struct export_params fixture_export(const struct fixture *fixture);
/* Waits until the callback was called. */
bool fixture_await_lost(struct fixture *fixture, unsigned seconds);

/* Who logs in where; NULL user: without CHAP. */
struct login {
	const char *portal, *iqn, *initiator, *user, *secret;
};
struct login fixture_login(const char *portal);
/* "address:port" of the tgtd; the caller frees it. */
char *fixture_portal(const struct fixture *fixture, const char *address);
/* A context that is logged in to LUN 1, or NULL (with libiscsi's text in error). */
struct iscsi_context *login_open(const struct login *login, char *error, size_t size);
/* Whether a login to LUN 1 is refused; its text must contain `word`. */
bool login_is_refused(const struct login *login, const char *word);

#endif
