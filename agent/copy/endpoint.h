/* SPDX-License-Identifier: Apache-2.0 */
/* Where bytes come from or go to: a file, an iSCSI LUN, an NBD export, nothing. One struct of
 * functions per kind; one contract test suite (tests/contract) runs against each.
 *
 * An endpoint belongs to one thread. Requests are asynchronous: submitted, then completed from
 * endpoint_service() in any order. In-flight writes never overlap; a flush is submitted only when
 * no write is in flight. After any error other than a failed read the endpoint is to be closed. */
#ifndef FERRY_AGENT_COPY_ENDPOINT_H
#define FERRY_AGENT_COPY_ENDPOINT_H

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "schema/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum endpoint_kind { ENDPOINT_FILE, ENDPOINT_ISCSI, ENDPOINT_NBD, ENDPOINT_NULL };

/* Longest READ or WRITE. */
#define ENDPOINT_MAX_BYTES ((size_t)1 << 20)

/* How to reach one; strings are borrowed for the call of endpoint_open. */
struct endpoint_spec {
	enum endpoint_kind kind;
	bool writable;
	const char *path; /* FILE: regular file or block device, not a symbolic link */
	bool direct;      /* FILE: read with O_DIRECT: what a guest with cache=none writes is not
			   * promised to be seen otherwise. Requests and memory that are aligned to
			   * 4096 cost no copy. Not with writable. Where the file system refuses
			   * O_DIRECT, the page cache is used. */
	/* ISCSI: LUN 1 */
	const char *address; /* numeric */
	uint16_t port;
	const char *iqn;
	const char *initiator;
	const char *user;
	const char *secret;
	const char *serial; /* VPD page 0x80 must equal it */
	/* Address and port are those of a peer's data port, and the target is behind this door of
	 * it (agent/tunnel/tunnel.h); NULL: they are the target's, in the clear. */
	const char *door;
	const char *door_secret;
	const char *fingerprint; /* of the key that the peer must have there */
	/* NBD: an export of a server on this host */
	const char *socket_path; /* absolute */
	const char *export_name;
	uint64_t size_bytes;   /* FILE, ISCSI, NBD: the size must equal it (FILE, NBD: 0: any);
				* NULL: the size to claim */
	uint64_t timeout_usec; /* a request that takes longer kills the session; 0: 30 s */
};

/* A copy with strings of its own, to be cleared. */
void endpoint_spec_copy(struct endpoint_spec *ret_spec, const struct endpoint_spec *spec);
void endpoint_spec_clear(struct endpoint_spec *spec);

struct endpoint;

enum endpoint_op { ENDPOINT_READ, ENDPOINT_WRITE, ENDPOINT_ZERO, ENDPOINT_DISCARD, ENDPOINT_FLUSH };

/* Owned by the caller; must live, with its buffer, until done was called or the endpoint was
 * closed. */
struct endpoint_request {
	enum endpoint_op op;
	struct extent
		extent; /* not for FLUSH; READ/WRITE: at most 1 MiB; ZERO/DISCARD: any length */
	void *data;     /* READ, WRITE */
	/* error: 0 or a negative errno (-EIO medium error, -ENOSPC, -EROFS, -ECONNRESET session
	 * lost, -ETIMEDOUT, -ECANCELED closed). Called from endpoint_service, endpoint_wait or
	 * endpoint_close, or, for immediate ends, endpoint_submit. It must not close the endpoint.
	 */
	void (*done)(struct endpoint_request *request, int error);
	void *arg;
	struct endpoint_request *next; /* the endpoint's own */
};

/* Opens and checks (identity, size). Blocks up to spec's timeout; sees cancel. -ESTALE: serial or
 * capacity are not what was expected: another or a re-made LUN. -EACCES: login refused, or the
 * target redirects elsewhere. -ECONNREFUSED: nobody listens; -ECONNRESET, -ETIMEDOUT. FILE: -EIO
 * when the size differs, -ELOOP, -EINVAL (no disk image), else errno of open. NBD: the same, and
 * -ENOENT: no such socket or export. NBD keeps cancel for endpoint_next_data: it must outlive the
 * endpoint. */
int endpoint_open(const struct endpoint_spec *spec, struct cancel *cancel,
	struct endpoint **ret_endpoint, struct fault *fault);
/* Ends pending requests with -ECANCELED and frees. An iSCSI session is logged out when idle and
 * sound. */
struct endpoint *endpoint_close(struct endpoint *endpoint);

uint64_t endpoint_size(const struct endpoint *endpoint);
/* Requests are whole blocks of so many bytes: 512 or a multiple. */
uint32_t endpoint_block_size(const struct endpoint *endpoint);
/* Runs of data and holes at or after offset: *ret_extent is the next run that may hold data (length
 * 0: none until the end). Kinds that cannot tell answer that all is data. Bounds are rounded
 * outward to whole sectors. -EIO: the map cannot be read, or the file shrank. NBD: asks the server
 * anew each time, and may fail as a request does. May block. */
int endpoint_next_data(
	struct endpoint *endpoint, uint64_t offset, struct extent *ret_extent, struct fault *fault);

/* Where in the extent data may begin; its end: all of it is a hole. Does not look for where the
 * data ends, which takes tmpfs 10 ms per GiB of it. Otherwise as endpoint_next_data. */
int endpoint_first_data(
	struct endpoint *endpoint, struct extent extent, uint64_t *ret_offset, struct fault *fault);

/* Starts a request. 0: done will be called, or was. Negative: refused, done is not called: -EINVAL
 * unaligned, empty or too long, -ERANGE beyond the end, -EROFS not opened for writing, or why the
 * session is dead (-ECONNRESET, -ETIMEDOUT). ISCSI: does not block. */
int endpoint_submit(struct endpoint *endpoint, struct endpoint_request *request);
/* Waits until at least one request has ended, the deadline, or cancel; ends what is ready. 0,
 * -ETIMEDOUT, -ECANCELED. With nothing in flight it returns 0 at once. */
int endpoint_service(struct endpoint *endpoint, uint64_t deadline_usec, struct cancel *cancel);
/* Waits with nothing to be ended in mind: keeps the session alive (a target drops who does not
 * answer its pings) until wake_fd (-1: none) is readable: 0; or -ETIMEDOUT at the deadline,
 * -ECANCELED, or why the session died. Ends requests that are ready meanwhile. */
int endpoint_wait(
	struct endpoint *endpoint, int wake_fd, uint64_t deadline_usec, struct cancel *cancel);
size_t endpoint_in_flight(const struct endpoint *endpoint);
/* Text of the last error (with object, offset, and sense key or errno), for the fault that the
 * caller writes. "" before any. */
const char *endpoint_error(const struct endpoint *endpoint);

/* One read of at most ENDPOINT_MAX_BYTES, waited for. Nothing else may be in flight. Blocks. */
int endpoint_read(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault);
/* The same for one write of at most that many, and for zeros of any length. Block. */
int endpoint_write(struct endpoint *endpoint, struct extent extent, void *data,
	struct cancel *cancel, struct fault *fault);
int endpoint_zero(struct endpoint *endpoint, struct extent extent, struct cancel *cancel,
	struct fault *fault);
/* Submits a flush and waits for it; no write may be in flight. Blocks. */
int endpoint_flush(struct endpoint *endpoint, struct cancel *cancel, struct fault *fault);

DEFINE_CLEANUP(struct endpoint *, endpoint_close)
#define CLEANUP_ENDPOINT CLEANUP(cleanup_endpoint_close)

#endif
