/* SPDX-License-Identifier: Apache-2.0 */
/* What people are to know of a migration that waits, and what they may say to it: since when its
 * peer is silent, that it is in doubt, what an operator assumed then, and "try again now".
 *
 * In the document: "doubt" (why, and what to do; "" when there is none) and "resolved" (what an
 * operator said, who and when, and what the peer said later), "assumed" (it was acted upon). All of
 * it is shown in the `migration` object, with events, and in the log. */
#ifndef FERRY_AGENT_MIGRATE_ATTENTION_H
#define FERRY_AGENT_MIGRATE_ATTENTION_H

#include "agent/migrate/migration.h"

/* A call to the peer was answered, in whatever way, or was not. One that was not heard for the
 * lease counts as silent, from when it was heard last. */
void attention_note_peer(struct migration *migration, bool answers);
/* The same where silence is measured: for how long nothing was heard. */
void attention_note_silence(struct migration *migration, uint64_t silent_usec);

/* Why it is in doubt, and what to do; NULL: it is not any more. Stored and shown. */
void attention_set_doubt(struct migration *migration, const char *why);

/* The operator's word about a migration in doubt: stored before it is acted upon. -EALREADY with a
 * fault when the other was said before. */
int attention_resolve(
	struct migration *migration, bool committed, const char *who, struct fault *fault);
/* What was said: 1 committed, 0 aborted, -ENOENT nothing. */
int attention_resolved(struct migration *migration);
/* It is acted upon now (in the document only: the event that follows stores it). */
void attention_assume(struct migration *migration);
bool attention_is_assumed(struct migration *migration);
/* What the peer said of it later: logged, stored and shown; if it contradicts what was assumed, as
 * the danger that it is. */
void attention_peer_said(struct migration *migration, bool committed);

/* Ends the pause that the migration makes before it tries again. */
void attention_nudge(struct migration *migration);
/* That pause: 0 when it has passed, 1 when it was ended, -ECANCELED. */
int attention_pause(
	struct migration *migration, const struct cancel *cancel, uint64_t duration_usec);

#endif
