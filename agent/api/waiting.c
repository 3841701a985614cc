/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/waiting.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

#define MAX_HELD 64

struct waiting {
	pthread_mutex_t lock; /* guards the rest */
	struct call *held[MAX_HELD];
	size_t n_held;
	bool is_closed;
};

struct waiting *waiting_new(void)
{
	struct waiting *waiting = xcalloc(1, sizeof(*waiting));

	pthread_mutex_init(&waiting->lock, NULL);
	return waiting;
}

struct waiting *waiting_free(struct waiting *waiting)
{
	if (!waiting)
		return NULL;
	pthread_mutex_destroy(&waiting->lock);
	free(waiting);
	return NULL;
}

int waiting_admit(struct api *api, const struct method *method, struct fault *fault)
{
	static const char *const served[] = {"Pool.follow", "Pool.whom"};

	if (method->flags & (METHOD_BARE | METHOD_EMERGENCY | METHOD_PEER))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(served); i++)
		if (strcmp(method->name, served[i]) == 0)
			return 0;
	/* A member of one that was overruled learns that from the check of its session. */
	if ((method->flags & METHOD_POOL) && api->is_overruled)
		return 0;
	if (method->flags & METHOD_POOL)
		return fault_set(fault, -EAGAIN, "FERRY_HOST_WAITING", NULL);
	if (method->flags & METHOD_HIDDEN)
		return fault_set(fault, -EAGAIN, "HOST_STILL_BOOTING", NULL);
	return fault_set(fault, -EPERM, "HOST_IS_SLAVE", api->coordinator_address, NULL);
}

static int say_busy(struct fault *fault)
{
	return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "migration", "", NULL);
}

int waiting_hold(struct waiting *waiting, struct call *call, struct fault *fault)
{
	SCOPE_LOCK(&waiting->lock);

	if (waiting->is_closed || waiting->n_held == MAX_HELD)
		return say_busy(fault);
	waiting->held[waiting->n_held++] = call;
	return CALL_PENDING;
}

void waiting_close(struct waiting *waiting)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	say_busy(&fault);
	pthread_mutex_lock(&waiting->lock);
	waiting->is_closed = true;
	pthread_mutex_unlock(&waiting->lock);
	while (waiting->n_held > 0)
		call_fail(waiting->held[--waiting->n_held], &fault);
}
