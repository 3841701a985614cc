/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/bound.h"

#include "agent/copy/copier.h"
#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>

#define DEPTH (COPY_DEFAULT_IN_FLIGHT / BOUND_BYTES / COPY_DEFAULT_SESSIONS)

struct sender {
	const struct endpoint_spec *target;
	void *data;
	_Atomic uint64_t *next; /* shared: the first byte that nobody has sent */
	pthread_t thread;
	struct endpoint_request requests[DEPTH];
	int error;
	struct fault fault;
};

static void sent(struct endpoint_request *request, int error)
{
	struct sender *sender = request->arg;

	request->data = NULL; /* free */
	if (error && !sender->error)
		sender->error = error;
}

static struct endpoint_request *find_free(struct sender *sender)
{
	for (size_t i = 0; i < DEPTH; i++)
		if (!sender->requests[i].data)
			return &sender->requests[i];
	return NULL;
}

static int send_all(struct sender *sender, struct endpoint *target)
{
	uint64_t size = endpoint_size(target);

	while (!sender->error) {
		struct endpoint_request *request = find_free(sender);
		if (!request) {
			int r = endpoint_service(target, USEC_FOREVER, NULL);
			if (r < 0)
				return r;
			continue;
		}
		uint64_t at = atomic_fetch_add(sender->next, BOUND_BYTES);
		if (at >= size)
			break;
		*request = (struct endpoint_request){.op = ENDPOINT_WRITE,
			.extent = {at, MIN(size - at, BOUND_BYTES)},
			.data = sender->data,
			.done = sent,
			.arg = sender};
		int r = endpoint_submit(target, request);
		if (r < 0)
			return r;
	}
	while (!sender->error && endpoint_in_flight(target)) {
		int r = endpoint_service(target, USEC_FOREVER, NULL);
		if (r < 0)
			return r;
	}
	return sender->error;
}

static void *sender_main(void *arg)
{
	struct sender *sender = arg;
	struct endpoint *target CLEANUP_ENDPOINT = NULL;

	sender->error = endpoint_open(sender->target, NULL, &target, &sender->fault);
	if (sender->error)
		return NULL;
	int r = send_all(sender, target);
	if (r < 0)
		sender->error = fault_text(&sender->fault, r, "%s", endpoint_error(target));
	else
		sender->error = endpoint_flush(target, NULL, &sender->fault);
	return NULL;
}

int bound_run(const struct endpoint_spec *target, void *data, struct fault *fault)
{
	struct sender senders[COPY_DEFAULT_SESSIONS] = {0};
	_Atomic uint64_t next = 0;
	unsigned n = 0;
	int error = 0;

	for (; n < COPY_DEFAULT_SESSIONS && !error; n++) {
		senders[n] = (struct sender){
			.target = target, .data = data, .next = &next, .fault = FAULT_INIT};
		error = pthread_create(&senders[n].thread, NULL, sender_main, &senders[n]);
		if (error)
			break;
	}
	int r = error ? fault_errno(fault, -error, "cannot start a thread") : 0;
	while (n-- > 0) {
		pthread_join(senders[n].thread, NULL);
		if (r == 0 && senders[n].error) {
			r = senders[n].error;
			fault_move(fault, &senders[n].fault);
		}
		fault_clear(&senders[n].fault);
	}
	return r;
}
