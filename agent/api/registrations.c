/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/registrations.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <strings.h>

struct registrations {
	pthread_mutex_t lock;
	struct value *sessions; /* ref -> struct: classes (array), since (int) */
};

struct registrations *registrations_new(void)
{
	struct registrations *registrations = xcalloc(1, sizeof(*registrations));

	pthread_mutex_init(&registrations->lock, NULL);
	registrations->sessions = value_new_struct();
	return registrations;
}

struct registrations *registrations_free(struct registrations *registrations)
{
	if (!registrations)
		return NULL;
	value_free(registrations->sessions);
	pthread_mutex_destroy(&registrations->lock);
	free(registrations);
	return NULL;
}

/* Classes may be written in any case. */
static bool has(const struct value *classes, const char *text)
{
	for (size_t i = 0; i < classes->array.n_items; i++)
		if (strcasecmp(value_string(classes->array.items[i], ""), text) == 0)
			return true;
	return false;
}

/* Those of `left`, and those of `right` that are not among them. */
static struct value *merge(const struct value *left, const struct value *right)
{
	struct value *all = left ? value_copy(left) : value_new_array();

	for (size_t i = 0; i < right->array.n_items; i++) {
		const char *text = value_string(right->array.items[i], "");
		if (all->array.n_items <= REGISTRATIONS_MAX && !has(all, text))
			value_append_string(all, text);
	}
	return all;
}

int registrations_add(struct registrations *registrations, const char *session,
	const struct value *classes, uint64_t generation, struct fault *fault)
{
	SCOPE_LOCK(&registrations->lock);
	struct value *mine = value_find(registrations->sessions, session);
	struct value *all CLEANUP_VALUE = merge(mine ? value_find(mine, "classes") : NULL, classes);

	if (all->array.n_items > REGISTRATIONS_MAX)
		return fault_set(fault, -E2BIG, "INVALID_VALUE", "classes",
			"more than 1000 classes and objects of one session", NULL);
	if (all->array.n_items == 0)
		return 0;
	if (!mine) {
		mine = value_new_struct();
		value_set_int(mine, "since", (int64_t)generation);
		value_set(registrations->sessions, session, mine);
	}
	value_set(mine, "classes", TAKE_PTR(all));
	return 0;
}

void registrations_remove(
	struct registrations *registrations, const char *session, const struct value *classes)
{
	SCOPE_LOCK(&registrations->lock);
	struct value *mine = value_find(registrations->sessions, session);
	struct value *left CLEANUP_VALUE = value_new_array();

	if (!mine)
		return;
	const struct value *before = value_find(mine, "classes");
	for (size_t i = 0; i < before->array.n_items; i++) {
		const char *text = value_string(before->array.items[i], "");
		if (!has(classes, text))
			value_append_string(left, text);
	}
	if (left->array.n_items == 0)
		value_unset(registrations->sessions, session);
	else
		value_set(mine, "classes", TAKE_PTR(left));
}

void registrations_end(struct registrations *registrations, const char *session)
{
	SCOPE_LOCK(&registrations->lock);
	value_unset(registrations->sessions, session);
}

int registrations_find(struct registrations *registrations, const char *session,
	struct value **ret_classes, uint64_t *ret_since, struct fault *fault)
{
	SCOPE_LOCK(&registrations->lock);
	const struct value *mine = value_find(registrations->sessions, session);

	if (!mine)
		return fault_set(fault, -ENOENT, "SESSION_NOT_REGISTERED", session, NULL);
	*ret_classes = value_copy(value_find(mine, "classes"));
	*ret_since = (uint64_t)value_find_int(mine, "since", 0);
	return 0;
}

void registrations_advance(
	struct registrations *registrations, const char *session, uint64_t generation)
{
	SCOPE_LOCK(&registrations->lock);
	struct value *mine = value_find(registrations->sessions, session);

	if (mine && value_find_int(mine, "since", 0) < (int64_t)generation)
		value_set_int(mine, "since", (int64_t)generation);
}
