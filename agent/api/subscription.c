/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/subscription.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "schema/classes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_DIGITS 20

static void subscription_add(
	struct subscription *subscription, const struct class *class, const char *ref)
{
	size_t n = subscription->n_filters++;

	subscription->filters =
		xrealloc(subscription->filters, n + 1, sizeof(*subscription->filters));
	subscription->filters[n] = (struct event_filter){class ? class->name : NULL, NULL};
	if (ref) {
		value_append_string(subscription->texts, ref);
		subscription->filters[n].ref =
			subscription->texts->array.items[subscription->texts->array.n_items - 1]
				->string;
	}
	if (!class || strcmp(class->name, "task") != 0)
		subscription->is_tasks_only = false;
}

static int subscription_parse_one(
	struct subscription *subscription, const char *text, struct fault *fault)
{
	const char *slash = strchr(text, '/');
	char *name CLEANUP_FREE = slash ? xstrndup(text, (size_t)(slash - text)) : xstrdup(text);
	const struct class *class;

	if (strcmp(text, "*") == 0) {
		subscription_add(subscription, NULL, NULL);
		return 0;
	}
	if (name[0] == '\0' || (slash && (slash[1] == '\0' || strchr(slash + 1, '/'))))
		return fault_set(fault, -EINVAL, "EVENT_SUBSCRIPTION_PARSE_FAILURE", text, NULL);
	class = class_find_nocase(name);
	if (class && !class->hidden)
		subscription_add(subscription, class, slash ? slash + 1 : NULL);
	return 0;
}

int subscription_parse(
	const struct value *wanted, struct subscription *ret_subscription, struct fault *fault)
{
	struct subscription made CLEANUP(subscription_clear) = {.is_tasks_only = true};

	made.texts = value_new_array();
	for (size_t i = 0; i < wanted->array.n_items; i++) {
		int r = subscription_parse_one(
			&made, value_string(wanted->array.items[i], ""), fault);
		if (r < 0)
			return r;
	}
	*ret_subscription = made;
	made = (struct subscription){0};
	return 0;
}

struct subscription subscription_copy(const struct subscription *subscription)
{
	struct subscription copy = {.texts = value_new_array(), .is_tasks_only = true};

	for (size_t i = 0; i < subscription->n_filters; i++) {
		const struct event_filter *filter = &subscription->filters[i];
		subscription_add(
			&copy, filter->class ? class_find(filter->class) : NULL, filter->ref);
	}
	return copy;
}

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool subscription_equal(const struct subscription *a, const struct subscription *b)
{
	if (a->n_filters != b->n_filters)
		return false;
	for (size_t i = 0; i < a->n_filters; i++)
		if (!text_equal(a->filters[i].class, b->filters[i].class) ||
			!text_equal(a->filters[i].ref, b->filters[i].ref))
			return false;
	return true;
}

void subscription_clear(struct subscription *subscription)
{
	free(subscription->filters);
	value_free(subscription->texts);
	*subscription = (struct subscription){0};
}

char *token_format(uint64_t generation)
{
	return xasprintf("%0*" PRIu64 ",%0*d", TOKEN_DIGITS, generation, TOKEN_DIGITS, 0);
}

int token_parse(const char *token, uint64_t *ret_generation, struct fault *fault)
{
	const char *comma = strchr(token, ',');
	char *first CLEANUP_FREE = NULL;
	uint64_t generation = 0;
	uint64_t messages;

	if (token[0] == '\0') {
		*ret_generation = 0;
		return 0;
	}
	first = xstrndup(token, comma ? (size_t)(comma - token) : 0);
	if (!comma || parse_uint64(first, &generation) < 0 ||
		parse_uint64(comma + 1, &messages) < 0)
		return fault_set(fault, -EINVAL, "EVENT_FROM_TOKEN_PARSE_FAILURE", token, NULL);
	*ret_generation = generation;
	return 0;
}
