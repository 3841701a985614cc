/* SPDX-License-Identifier: Apache-2.0 */
/* Reads as zeros, forgets what is written: for measuring what is on the other side. */
#include "agent/copy/endpoint_impl.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static void null_close(struct endpoint *endpoint)
{
	free(endpoint);
}

static int null_next_data(
	struct endpoint *endpoint, uint64_t offset, struct extent *ret_extent, struct fault *fault)
{
	(void)offset;
	(void)fault;
	*ret_extent = (struct extent){endpoint->size_bytes, 0};
	return 0;
}

static int null_submit(struct endpoint *endpoint, struct endpoint_request *request)
{
	(void)endpoint;
	if (request->op == ENDPOINT_READ)
		memset(request->data, 0, request->extent.length);
	request->done(request, 0);
	return 0;
}

static const struct endpoint_ops null_ops = {
	.close = null_close,
	.next_data = null_next_data,
	.submit = null_submit,
};

int endpoint_null_open(
	const struct endpoint_spec *spec, struct endpoint **ret_endpoint, struct fault *fault)
{
	if (!spec->size_bytes || spec->size_bytes % ENDPOINT_SECTOR)
		return fault_text(fault, -EINVAL, "null endpoint: %llu bytes are no whole sectors",
			(unsigned long long)spec->size_bytes);
	struct endpoint *endpoint = xcalloc(1, sizeof(*endpoint));
	endpoint->ops = &null_ops;
	endpoint->size_bytes = spec->size_bytes;
	endpoint->block_bytes = ENDPOINT_SECTOR;
	endpoint->writable = spec->writable;
	*ret_endpoint = endpoint;
	return 0;
}
