/* SPDX-License-Identifier: Apache-2.0 */
/* Calls from one host of a pool to another: over HTTPS, to the certificate that is pinned, with the
 * secret that a host shares with its coordinator. May be used by any number of threads. */
#ifndef FERRY_AGENT_POOL_LINK_H
#define FERRY_AGENT_POOL_LINK_H

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/value.h"
#include "schema/db_remote.h"

#include <stdbool.h>
#include <stdint.h>

struct link;

/* Who the caller takes for the coordinator. Of two hosts that both do it, the one of the later term
 * is right; of two of one term, the one whose ref is greater. */
struct rank {
	int64_t term;
	const char *coordinator; /* ref */
};

/* < 0, 0, > 0. */
int rank_compare(const struct rank *a, const struct rank *b);

/* host: ref of the host whose secret it is, whichever side it is on. rank: NULL: not known yet.
 * Strings are copied; nothing is sent. */
struct link *link_new(const char *url, const char *fingerprint, const char *host,
	const char *secret, const struct rank *rank);
struct link *link_free(struct link *link);

/* client_call() of Pool.<verb>, with the secret before args (array, taken over; NULL: none). */
int link_call(struct link *link, const char *verb, struct value *args, uint64_t timeout_usec,
	struct cancel *cancel, struct value **ret_result, struct fault *fault);
/* Whether that result of link_call says that the call was never sent. */
bool link_was_not_sent(int result);

/* The way to the pool's database, for a member. arg of the transport is the link. */
struct db_transport link_transport(struct link *link);

/* What stands in the place of a session. */
char *link_session_format(const char *host, const char *secret, const struct rank *rank);
struct link_caller {
	char *host;
	char *secret;
	char *coordinator;
	struct rank rank; /* its text is that above */
};
/* false: it is none. */
bool link_session_parse(const char *session, struct link_caller *ret_caller);
void link_caller_clear(struct link_caller *caller);
/* Takes the same time wherever the two differ. */
bool link_secret_is(const char *secret, const char *expected);

DEFINE_CLEANUP(struct link *, link_free)
#define CLEANUP_LINK        CLEANUP(cleanup_link_free)
#define CLEANUP_LINK_CALLER CLEANUP(link_caller_clear)

#endif
