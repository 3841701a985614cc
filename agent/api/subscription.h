/* SPDX-License-Identifier: Apache-2.0 */
/* What an event.from asks for: the filters made of its classes, and its token. */
#ifndef FERRY_AGENT_API_SUBSCRIPTION_H
#define FERRY_AGENT_API_SUBSCRIPTION_H

#include "base/fault.h"
#include "base/value.h"
#include "schema/pool_db.h"

#include <stdbool.h>
#include <stdint.h>

struct subscription {
	struct event_filter *filters;
	size_t n_filters;    /* 0: nothing that exists here was asked for */
	struct value *texts; /* owns the refs of the filters */
	bool is_tasks_only;  /* then nobody gains by waiting for more changes (contract 4.1) */
};

/* wanted: array of "*", "class", "class/ref", in any case; classes that this pool does not have
 * give no events. EVENT_SUBSCRIPTION_PARSE_FAILURE [text] for another form. */
int subscription_parse(
	const struct value *wanted, struct subscription *ret_subscription, struct fault *fault);
struct subscription subscription_copy(const struct subscription *subscription);
/* Whether both name the same filters in the same order. */
bool subscription_equal(const struct subscription *a, const struct subscription *b);
void subscription_clear(struct subscription *subscription);

/* Tokens are "%020d,%020d": zero padded, so that they compare as text. "" is generation 0.
 * EVENT_FROM_TOKEN_PARSE_FAILURE [token]. */
char *token_format(uint64_t generation);
int token_parse(const char *token, uint64_t *ret_generation, struct fault *fault);

#endif
