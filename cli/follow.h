/* SPDX-License-Identifier: Apache-2.0 */
/* One object of the server, followed by its events. A lost connection is made again, for a while.
 */
#ifndef FERRY_CLI_FOLLOW_H
#define FERRY_CLI_FOLLOW_H

#include "base/cancel.h"
#include "cli/context.h"

struct follow {
	struct context *context;
	const char *class;
	const char *ref;
	struct cancel *cancel; /* what ends a wait now; of interrupt.h */
	/* Told when contact is lost, so that what was drawn can be taken away; may be NULL. */
	void (*lost)(void *arg);
	void *arg;
	char *token;        /* of event.from; follow_clear frees it */
	uint64_t lost_usec; /* since when there is no answer; 0: there is */
};

/* Waits (30 s at most) for news: *record, which the caller owns, becomes the newest record if there
 * is one. -ECANCELED, HANDLE_INVALID when the object is gone, or an error that trying again does
 * not mend. */
int follow_next(struct follow *follow, struct value **record, struct fault *fault);
/* After another call on the same session: 0 when it is worth to be tried again. */
int follow_retry(struct follow *follow, int error, struct fault *fault);
void follow_clear(struct follow *follow);

#define CLEANUP_FOLLOW CLEANUP(follow_clear)

#endif
