/* SPDX-License-Identifier: Apache-2.0 */
/* Checks passwords, on a thread of its own: hashing costs tens of milliseconds by design, and a
 * refusal is answered late on purpose. Neither holds a worker. An unknown user costs as much time
 * as a wrong password. Passwords that are in PAM are asked for on threads that come and go, as
 * that takes as long as the host's directory does. */
#ifndef FERRY_AGENT_API_AUTH_H
#define FERRY_AGENT_API_AUTH_H

#include "base/fault.h"
#include "xmlrpc/dispatch.h"

#include <stdint.h>

/* Logins that wait for their check; more are refused at once. */
#define AUTH_MAX_WAITING 256
/* Of those, asked of PAM at once. */
#define AUTH_MAX_PAM_THREADS 8

struct auth;

struct auth_params {
	/* The hash of a user's password; NULL when there is no such user. */
	int (*find)(void *find_arg, const char *user, char **ret_hash, struct fault *fault);
	void *find_arg;
	const char *pam_socket; /* of ferry-pam; borrowed */
	uint64_t delay_usec;    /* how long a refusal waits */
	/* The password was right: ends the call. */
	void (*admit)(void *arg, struct call *call, const char *user, const char *originator);
	void *arg;
};

int auth_new(const struct auth_params *params, struct auth **ret_auth, struct fault *fault);
/* Takes the call over: it ends with what admit gives, or SESSION_AUTHENTICATION_FAILED [user,
 * text]. Negative: refused now, the call is the caller's. */
int auth_submit(struct auth *auth, struct call *call, const char *user, const char *password,
	const char *originator, struct fault *fault);
/* Ends all waiting calls and the thread. */
void auth_close(struct auth *auth);
struct auth *auth_free(struct auth *auth);

#endif
