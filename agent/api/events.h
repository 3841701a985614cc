/* SPDX-License-Identifier: Apache-2.0 */
/* event.from and event.next: calls that wait for a change of an object. They are held on a list,
 * not on threads; one thread looks for them in the database after a change, and ends them. */
#ifndef FERRY_AGENT_API_EVENTS_H
#define FERRY_AGENT_API_EVENTS_H

#include "base/fault.h"
#include "base/value.h"
#include "schema/pool_db.h"
#include "xmlrpc/dispatch.h"

#include <stdint.h>

/* Changes that follow each other this closely are one answer (contract 4.1). */
#define EVENTS_WINDOW_USEC UINT64_C(50000)

/* A call without a timeout of its own is answered so late at last. */
#define EVENTS_NEXT_USEC UINT64_C(60000000)

struct events;

/* Becomes the pool's listener; pool is borrowed. */
int events_new(struct pool_db *pool, struct events **ret_events, struct fault *fault);
/* Ends all waiting calls with what they have (no events), and the thread. */
void events_close(struct events *events);
struct events *events_free(struct events *events);

/* event.from. wanted: array of strings; token as from an earlier answer, or "". Returns 0 with the
 * answer, CALL_PENDING (the call is taken over), or a fault: EVENT_SUBSCRIPTION_PARSE_FAILURE
 * [text], EVENT_FROM_TOKEN_PARSE_FAILURE [token], EVENTS_LOST []. */
int events_from(struct events *events, struct call *call, const struct value *wanted,
	const char *token, double timeout_sec, struct value **ret_result, struct fault *fault);

/* event.next: as event.from for what the call's session has registered for, from where it was told
 * last; the answer is the array of events, empty after EVENTS_NEXT_USEC. SESSION_NOT_REGISTERED
 * [session]. */
int events_next(
	struct events *events, struct call *call, struct value **ret_result, struct fault *fault);
/* event.register and event.unregister. EVENT_SUBSCRIPTION_PARSE_FAILURE [text]. */
int events_register(struct events *events, const char *session, const struct value *wanted,
	struct fault *fault);
int events_unregister(struct events *events, const char *session, const struct value *wanted,
	struct fault *fault);

/* The session is no more: its registrations go, and its waiting calls fail with SESSION_INVALID. */
void events_end_session(struct events *events, const char *session);

#endif
