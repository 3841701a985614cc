/* SPDX-License-Identifier: Apache-2.0 */
/* What a kind of endpoint implements. Seen by agent/copy/endpoint*.c only. */
#ifndef FERRY_AGENT_COPY_ENDPOINT_IMPL_H
#define FERRY_AGENT_COPY_ENDPOINT_IMPL_H

#include "agent/copy/endpoint.h"

#define ENDPOINT_SECTOR 512

/* endpoint.c has checked bounds, alignment and access before it calls. Members may be NULL where
 * noted. */
struct endpoint_ops {
	/* Ends what is in flight with -ECANCELED and frees. */
	void (*close)(struct endpoint *endpoint);
	/* NULL: all is data. offset is below the size. */
	int (*next_data)(struct endpoint *endpoint, uint64_t offset, struct extent *ret_extent,
		struct fault *fault);
	/* The start of the next run of data, which may lie beyond the extent: then it is a hole.
	 * NULL: found by next_data. */
	int (*first_data)(struct endpoint *endpoint, struct extent extent, uint64_t *ret_offset,
		struct fault *fault);
	int (*submit)(struct endpoint *endpoint, struct endpoint_request *request);
	/* NULL: submit ends every request itself. */
	int (*service)(struct endpoint *endpoint, uint64_t deadline_usec, struct cancel *cancel);
	/* Ends what is in flight with -ECANCELED; the session is dead afterwards. NULL like
	 * service.
	 */
	void (*abort)(struct endpoint *endpoint);
	/* NULL: there is no session. */
	int (*wait)(struct endpoint *endpoint, int wake_fd, uint64_t deadline_usec,
		struct cancel *cancel);
};

/* First member of each kind's own struct. */
struct endpoint {
	const struct endpoint_ops *ops;
	uint64_t size_bytes;
	uint32_t block_bytes; /* requests are aligned to it */
	bool writable;
	size_t n_in_flight;
	char error[512];
};

int endpoint_file_open(
	const struct endpoint_spec *spec, struct endpoint **ret_endpoint, struct fault *fault);
int endpoint_iscsi_open(const struct endpoint_spec *spec, struct cancel *cancel,
	struct endpoint **ret_endpoint, struct fault *fault);
int endpoint_nbd_open(const struct endpoint_spec *spec, struct cancel *cancel,
	struct endpoint **ret_endpoint, struct fault *fault);
int endpoint_null_open(
	const struct endpoint_spec *spec, struct endpoint **ret_endpoint, struct fault *fault);

/* Sets the text of the last error; returns `error`. */
int endpoint_fail(struct endpoint *endpoint, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* "read", "write", "zero", "discard", "flush". */
const char *endpoint_op_name(enum endpoint_op op);

#endif
