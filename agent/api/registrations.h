/* SPDX-License-Identifier: Apache-2.0 */
/* What sessions registered for with event.register, and how far event.next has told them. It lives
 * as long as the agent and the session. */
#ifndef FERRY_AGENT_API_REGISTRATIONS_H
#define FERRY_AGENT_API_REGISTRATIONS_H

#include "base/fault.h"
#include "base/value.h"

#include <stdint.h>

/* Classes and objects of one session. */
#define REGISTRATIONS_MAX 1000

struct registrations;

struct registrations *registrations_new(void);
struct registrations *registrations_free(struct registrations *registrations);

/* Adds to what the session has. A session's first one counts from this generation. INVALID_VALUE
 * ["classes", text] beyond REGISTRATIONS_MAX. */
int registrations_add(struct registrations *registrations, const char *session,
	const struct value *classes, uint64_t generation, struct fault *fault);
/* What was not registered is passed over. Without any left the session has no registration. */
void registrations_remove(
	struct registrations *registrations, const char *session, const struct value *classes);
void registrations_end(struct registrations *registrations, const char *session);

/* *ret_classes: array of strings. SESSION_NOT_REGISTERED [session]. */
int registrations_find(struct registrations *registrations, const char *session,
	struct value **ret_classes, uint64_t *ret_since, struct fault *fault);
/* The session was told of everything up to this generation. */
void registrations_advance(
	struct registrations *registrations, const char *session, uint64_t generation);

#endif
