/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/endpoint.h"

#include "agent/copy/endpoint_impl.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>

int endpoint_fail(struct endpoint *endpoint, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(endpoint->error, sizeof(endpoint->error), format, args);
	va_end(args);
	return error;
}

const char *endpoint_op_name(enum endpoint_op op)
{
	switch (op) {
	case ENDPOINT_READ:
		return "read";
	case ENDPOINT_WRITE:
		return "write";
	case ENDPOINT_ZERO:
		return "zero";
	case ENDPOINT_DISCARD:
		return "discard";
	case ENDPOINT_FLUSH:
		return "flush";
	}
	return "unknown";
}

/* Where the strings of a spec stand: whoever adds one names it here. */
static const size_t spec_strings[] = {offsetof(struct endpoint_spec, path),
	offsetof(struct endpoint_spec, address), offsetof(struct endpoint_spec, iqn),
	offsetof(struct endpoint_spec, initiator), offsetof(struct endpoint_spec, user),
	offsetof(struct endpoint_spec, secret), offsetof(struct endpoint_spec, serial),
	offsetof(struct endpoint_spec, door), offsetof(struct endpoint_spec, door_secret),
	offsetof(struct endpoint_spec, fingerprint), offsetof(struct endpoint_spec, socket_path),
	offsetof(struct endpoint_spec, export_name)};

static char **spec_string(struct endpoint_spec *spec, size_t i)
{
	return (char **)((char *)spec + spec_strings[i]);
}

void endpoint_spec_copy(struct endpoint_spec *ret_spec, const struct endpoint_spec *spec)
{
	*ret_spec = *spec;
	for (size_t i = 0; i < ARRAY_SIZE(spec_strings); i++)
		*spec_string(ret_spec, i) = xstrdup(*spec_string(ret_spec, i));
}

void endpoint_spec_clear(struct endpoint_spec *spec)
{
	for (size_t i = 0; i < ARRAY_SIZE(spec_strings); i++)
		free(*spec_string(spec, i));
	*spec = (struct endpoint_spec){0};
}

int endpoint_open(const struct endpoint_spec *spec, struct cancel *cancel,
	struct endpoint **ret_endpoint, struct fault *fault)
{
	switch (spec->kind) {
	case ENDPOINT_FILE:
		return endpoint_file_open(spec, ret_endpoint, fault);
	case ENDPOINT_ISCSI:
		return endpoint_iscsi_open(spec, cancel, ret_endpoint, fault);
	case ENDPOINT_NBD:
		return endpoint_nbd_open(spec, cancel, ret_endpoint, fault);
	case ENDPOINT_NULL:
		return endpoint_null_open(spec, ret_endpoint, fault);
	}
	return fault_text(fault, -EINVAL, "endpoint of unknown kind %d", (int)spec->kind);
}

struct endpoint *endpoint_close(struct endpoint *endpoint)
{
	if (endpoint)
		endpoint->ops->close(endpoint);
	return NULL;
}

uint64_t endpoint_size(const struct endpoint *endpoint)
{
	return endpoint->size_bytes;
}

uint32_t endpoint_block_size(const struct endpoint *endpoint)
{
	return endpoint->block_bytes;
}

size_t endpoint_in_flight(const struct endpoint *endpoint)
{
	return endpoint->n_in_flight;
}

const char *endpoint_error(const struct endpoint *endpoint)
{
	return endpoint->error;
}

int endpoint_next_data(
	struct endpoint *endpoint, uint64_t offset, struct extent *ret_extent, struct fault *fault)
{
	if (offset >= endpoint->size_bytes) {
		*ret_extent = (struct extent){endpoint->size_bytes, 0};
		return 0;
	}
	if (!endpoint->ops->next_data) {
		*ret_extent = (struct extent){offset, endpoint->size_bytes - offset};
		return 0;
	}
	int r = endpoint->ops->next_data(endpoint, offset, ret_extent, fault);
	/* Whoever copies takes the rest for a hole then. */
	if (r == 0 && ret_extent->length == 0 && ret_extent->offset < endpoint->size_bytes)
		return fault_text(fault, endpoint_fail(endpoint, -EIO, "the map is broken"),
			"the map of a disk of %llu bytes has a run of no length at %llu",
			(unsigned long long)endpoint->size_bytes,
			(unsigned long long)ret_extent->offset);
	return r;
}

int endpoint_first_data(
	struct endpoint *endpoint, struct extent extent, uint64_t *ret_offset, struct fault *fault)
{
	uint64_t end = extent.offset + extent.length;
	struct extent run = {end, 0};
	int r;

	if (endpoint->ops->first_data && extent.offset < endpoint->size_bytes)
		r = endpoint->ops->first_data(endpoint, extent, &run.offset, fault);
	else
		r = endpoint_next_data(endpoint, extent.offset, &run, fault);
	if (r == 0)
		*ret_offset = MIN(run.offset, end);
	return r;
}

static int check_request(struct endpoint *endpoint, const struct endpoint_request *request)
{
	const char *name = endpoint_op_name(request->op);
	unsigned long long offset = request->extent.offset, length = request->extent.length;
	unsigned long long size = endpoint->size_bytes;

	if (request->op != ENDPOINT_READ && !endpoint->writable)
		return endpoint_fail(endpoint, -EROFS, "%s: not opened for writing", name);
	if (request->op == ENDPOINT_FLUSH)
		return 0;
	if (length == 0 || offset % endpoint->block_bytes || length % endpoint->block_bytes)
		return endpoint_fail(endpoint, -EINVAL,
			"%s of %llu bytes at %llu: empty, or not in whole blocks of %u", name,
			length, offset, endpoint->block_bytes);
	if (offset > size || length > size - offset)
		return endpoint_fail(endpoint, -ERANGE,
			"%s of %llu bytes at %llu: beyond the end at %llu", name, length, offset,
			size);
	if ((request->op == ENDPOINT_READ || request->op == ENDPOINT_WRITE) &&
		length > ENDPOINT_MAX_BYTES)
		return endpoint_fail(endpoint, -EINVAL,
			"%s of %llu bytes at %llu: at most %zu at once", name, length, offset,
			ENDPOINT_MAX_BYTES);
	return 0;
}

int endpoint_submit(struct endpoint *endpoint, struct endpoint_request *request)
{
	int r = check_request(endpoint, request);

	return r < 0 ? r : endpoint->ops->submit(endpoint, request);
}

int endpoint_service(struct endpoint *endpoint, uint64_t deadline_usec, struct cancel *cancel)
{
	if (!endpoint->n_in_flight)
		return 0;
	return endpoint->ops->service(endpoint, deadline_usec, cancel);
}

int endpoint_wait(
	struct endpoint *endpoint, int wake_fd, uint64_t deadline_usec, struct cancel *cancel)
{
	struct pollfd fd = {.fd = wake_fd, .events = POLLIN};

	if (endpoint->ops->wait)
		return endpoint->ops->wait(endpoint, wake_fd, deadline_usec, cancel);
	int r = cancel_poll(cancel, &fd, 1, deadline_usec);
	return r > 0 ? 0 : r == 0 ? -ETIMEDOUT : r;
}

struct waiter {
	bool ended;
	int error;
};

static void waiter_done(struct endpoint_request *request, int error)
{
	struct waiter *waiter = request->arg;

	waiter->ended = true;
	waiter->error = error;
}

/* The request lives on the caller's stack: a wait that is cut short must not leave it behind in the
 * endpoint, so it takes the session with it. */
static int submit_and_wait(
	struct endpoint *endpoint, struct endpoint_request *request, struct cancel *cancel)
{
	struct waiter *waiter = request->arg;
	int r = endpoint_submit(endpoint, request);

	if (r < 0)
		return r;
	while (!waiter->ended && r == 0)
		r = endpoint_service(endpoint, USEC_FOREVER, cancel);
	if (!waiter->ended) {
		endpoint->ops->abort(endpoint);
		return endpoint_fail(endpoint, r, "%s: %s", endpoint_op_name(request->op),
			r == -ECANCELED ? cancel_reason(cancel) : "cut short");
	}
	return waiter->error;
}

static int run_one(struct endpoint *endpoint, struct endpoint_request request,
	struct cancel *cancel, struct fault *fault)
{
	struct waiter waiter = {0};

	request.done = waiter_done;
	request.arg = &waiter;
	int r = submit_and_wait(endpoint, &request, cancel);

	return r < 0 ? fault_text(fault, r, "%s", endpoint->error) : 0;
}

int endpoint_read(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault)
{
	const struct endpoint_request request = {
		.op = ENDPOINT_READ, .extent = extent, .data = data};

	return run_one(endpoint, request, cancel, fault);
}

int endpoint_write(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault)
{
	const struct endpoint_request request = {
		.op = ENDPOINT_WRITE, .extent = extent, .data = data};

	return run_one(endpoint, request, cancel, fault);
}

int endpoint_zero(
	struct endpoint *endpoint, struct extent extent, struct cancel *cancel, struct fault *fault)
{
	const struct endpoint_request request = {.op = ENDPOINT_ZERO, .extent = extent};

	return run_one(endpoint, request, cancel, fault);
}

int endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault)
{
	const struct endpoint_request request = {.op = ENDPOINT_FLUSH};

	return run_one(endpoint, request, cancel, fault);
}
