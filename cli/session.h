/* SPDX-License-Identifier: Apache-2.0 */
/* A login on a server, and calls on it. */
#ifndef FERRY_CLI_SESSION_H
#define FERRY_CLI_SESSION_H

#include "base/cancel.h"
#include "base/fault.h"
#include "base/value.h"
#include "cli/config.h"

#include <stdbool.h>
#include <stdint.h>

struct session;

struct session_params {
	const struct config *config;
	/* A name in the configuration, or a URL; NULL: $FERRY_SERVER, the configuration's default,
	 * or its only server. */
	const char *server;
	uint64_t timeout_usec; /* of one call */
	bool may_ask;          /* for user and password, on the terminal */
	bool is_local;         /* at a member of a pool, for what is done without the coordinator */
};

/* Connects and logs in. Blocks. */
int session_open(
	const struct session_params *params, struct session **ret_session, struct fault *fault);
/* Logs out, waiting a few seconds at most. NULL is fine. */
struct session *session_close(struct session *session);

/* How its server is reached and known, and the ref that it has there: for what is no call. All is
 * the session's own. */
struct client_params;
void session_server(const struct session *session, struct client_params *ret_server);
const char *session_ref(const struct session *session);
const char *session_url(const struct session *session);
/* What it was opened with, for another server that is to log in there; owned by the session. */
const char *session_user(const struct session *session);
const char *session_password(const struct session *session);
/* SHA-256 of the server's key: the pinned one, or that of a server whose certificate was verified
 * in another way. The caller frees it. */
int session_fingerprint(const struct session *session, char **ret_fingerprint, struct fault *fault);

/* Calls method with the session's ref and the values given (each is taken over), NULL-terminated.
 * *ret_result may be given as NULL. Blocks until the answer, the timeout, or the token of
 * session_set_cancel. Logs in anew, once, when the session has ended. -EREMOTEIO: the server
 * refused. -ECANCELED: interrupted. Other values: no answer. */
int session_call(struct session *session, struct value **ret_result, struct fault *fault,
	const char *method, ...) __attribute__((sentinel));

/* The same with the values of an array. A "system." call has no session in front. */
int session_call_values(struct session *session, const char *method, const struct value *values,
	struct value **ret_result, struct fault *fault);

/* For calls that the server holds back on purpose: so much longer than the timeout. */
void session_set_patience(struct session *session, uint64_t usec);
/* What interrupts calls from here on; at first interrupt_first(). */
void session_set_cancel(struct session *session, struct cancel *cancel);

/* Class.get_all_records, asked once in a session's life; owned by it. */
int session_records(struct session *session, const char *class, const struct value **ret_records,
	struct fault *fault);

DEFINE_CLEANUP(struct session *, session_close)
#define CLEANUP_SESSION CLEANUP(cleanup_session_close)

#endif
