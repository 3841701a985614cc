/* SPDX-License-Identifier: Apache-2.0 */
#include "target/tgt_mgmt.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/inject.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

/* struct tgtadm_req of usr/tgtadm.h, unchanged since 2012: native byte order and alignment. */
struct request_header {
	uint32_t mode;
	uint32_t op;
	char lld[64];
	uint32_t length; /* header and payload */
	int32_t tid;
	uint64_t sid;
	uint64_t lun;
	uint32_t cid;
	uint32_t host_no;
	uint32_t device_type;
	uint32_t ac_dir; /* 0: incoming */
	uint32_t pack;
	uint32_t force;
};
_Static_assert(sizeof(struct request_header) == 120, "tgtd reads a header of 120 bytes");
_Static_assert(offsetof(struct request_header, length) == 72, "as tgtd has it");
_Static_assert(offsetof(struct request_header, sid) == 80, "as tgtd has it");
_Static_assert(offsetof(struct request_header, force) == 116, "as tgtd has it");

struct reply_header {
	uint32_t error;
	uint32_t length; /* header and text */
};
_Static_assert(sizeof(struct reply_header) == 8, "tgtd writes a header of 8 bytes");

#define ERROR_LAST 24

static const char *const error_texts[ERROR_LAST + 1] = {
	[0] = "done",
	[1] = "unknown error",
	[2] = "out of memory",
	[3] = "no such driver",
	[4] = "no such target",
	[5] = "no such logical unit",
	[6] = "no such session",
	[7] = "no such connection",
	[8] = "no such binding",
	[9] = "the target exists already",
	[10] = "the logical unit exists already",
	[11] = "the binding exists already",
	[12] = "the access rule exists already",
	[13] = "no such access rule",
	[14] = "the user exists already",
	[15] = "no such user",
	[16] = "too many users",
	[17] = "invalid request (its log lines may say why)",
	[18] = "the target has an outgoing account already",
	[19] = "the target is in use",
	[20] = "the logical unit is in use",
	[21] = "the driver is in use",
	[22] = "unsupported operation",
	[23] = "unknown parameter",
	[24] = "removal is prevented by an initiator",
};

const char *tgt_error_text(int error)
{
	return error >= 0 && error <= ERROR_LAST ? error_texts[error] : "unknown error number";
}

bool tgt_is_word(const char *s, size_t max, const char *extra)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t n = s ? strlen(s) : 0;

	if (n == 0 || n > max)
		return false;
	for (; *s; s++)
		if (!strchr(letters, *s) && !strchr(extra, *s))
			return false;
	return true;
}

static bool needs_payload(const struct tgt_request *request)
{
	switch (request->op) {
	case TGT_OP_NEW:
	case TGT_OP_UPDATE:
	case TGT_OP_BIND:
	case TGT_OP_UNBIND:
		return true;
	case TGT_OP_DELETE:
		return request->mode == TGT_MODE_ACCOUNT || request->mode == TGT_MODE_PORTAL;
	default:
		return false;
	}
}

/* A connect() to a listener whose queue is full (a frozen tgtd) waits as long as SO_SNDTIMEO says;
 * poll cannot see it. */
static int connect_within(const struct tgt_mgmt *mgmt, uint64_t deadline_usec)
{
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(mgmt->socket_path);
	uint64_t now = clock_now_usec();

	if (fd < 0)
		return -errno;
	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	if (now >= deadline_usec)
		return -ETIMEDOUT;
	memcpy(address.sun_path, mgmt->socket_path, length);
	uint64_t left = deadline_usec - now;
	struct timeval timeout = {
		.tv_sec = (time_t)(left / USEC_PER_SEC),
		.tv_usec = (suseconds_t)(left % USEC_PER_SEC),
	};
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return TAKE_FD(fd);
}

static int check_listener(int fd, pid_t pid)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (pid == 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return -errno;
	return peer.pid == pid ? 0 : -EPERM;
}

static int wait_for(int fd, short events, const struct cancel *cancel, uint64_t deadline_usec)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};
	int r = cancel_poll(cancel, &poll_fd, 1, deadline_usec);

	if (r == 0)
		return -ETIMEDOUT;
	return r < 0 ? r : 0;
}

static int send_all(
	int fd, const struct buf *message, const struct cancel *cancel, uint64_t deadline_usec)
{
	for (size_t done = 0; done < message->length;) {
		ssize_t n = send(fd, message->data + done, message->length - done,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return errno == EPIPE || errno == ECONNRESET ? -EPROTO : -errno;
		int r = wait_for(fd, POLLOUT, cancel, deadline_usec);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Exactly length bytes; the end of the stream before is a torn answer. */
static int receive_all(
	int fd, void *data, size_t length, const struct cancel *cancel, uint64_t deadline_usec)
{
	for (size_t done = 0; done < length;) {
		int r = wait_for(fd, POLLIN, cancel, deadline_usec);
		if (r < 0)
			return r;
		ssize_t n = recv(fd, (char *)data + done, length - done, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return -EPROTO;
		done += (size_t)n;
	}
	return 0;
}

static int receive_reply(
	int fd, const struct cancel *cancel, uint64_t deadline_usec, struct buf *ret_text)
{
	struct reply_header header;
	int r = receive_all(fd, &header, sizeof(header), cancel, deadline_usec);

	if (r < 0)
		return r;
	if (header.length < sizeof(header) || header.length > TGT_REPLY_MAX ||
		header.error > INT32_MAX)
		return -EPROTO;
	size_t length = header.length - sizeof(header);
	char *text CLEANUP_FREE = malloc(length + 1);
	if (!text)
		return -ENOMEM;
	r = receive_all(fd, text, length, cancel, deadline_usec);
	if (r < 0)
		return r;
	if (ret_text)
		buf_append(ret_text, text, length);
	return (int)header.error;
}

static int check_request(const struct tgt_request *request)
{
	if (!request->payload)
		return needs_payload(request) ? -EINVAL : 0;
	return strlen(request->payload) + 1 > TGT_PAYLOAD_MAX ? -EMSGSIZE : 0;
}

int tgt_mgmt_call(const struct tgt_mgmt *mgmt, const struct tgt_request *request,
	const struct cancel *cancel, uint64_t deadline_usec, struct buf *ret_text)
{
	int r = check_request(request);

	if (r < 0)
		return r;
	/* tgtd takes the payload as a C string of exactly that size. */
	size_t n_payload = request->payload ? strlen(request->payload) + 1 : 0;
	struct request_header header = {
		.mode = request->mode,
		.op = request->op,
		.lld = "iscsi",
		.length = (uint32_t)(sizeof(header) + n_payload),
		.tid = request->tid,
		.sid = request->sid,
		.lun = request->lun,
		.cid = request->cid,
	};
	struct buf message CLEANUP_BUF = BUF_INIT;
	buf_append(&message, &header, sizeof(header));
	buf_append(&message, request->payload, n_payload);

	/* EREMOTEIO stands for an answer of tgtd's: unknown error. */
	r = INJECT_WAIT(cancel, NULL, "tgt.mgmt");
	if (r < 0)
		return r == -EREMOTEIO ? 1 : r;
	int fd CLEANUP_CLOSE = connect_within(mgmt, deadline_usec);
	if (fd < 0)
		return fd;
	r = check_listener(fd, mgmt->pid);
	if (r == 0)
		r = send_all(fd, &message, cancel, deadline_usec);
	return r < 0 ? r : receive_reply(fd, cancel, deadline_usec, ret_text);
}
