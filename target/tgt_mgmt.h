/* SPDX-License-Identifier: Apache-2.0 */
/* The management protocol of tgtd 1.0.85 (usr/tgtadm.h): one request per connection to a UNIX
 * socket, a header of 120 bytes and a text, answered by a header of 8 bytes and a text. The
 * protocol has no version, so nothing but tgtd 1.0.x may be behind the socket. */
#ifndef FERRY_TARGET_TGT_MGMT_H
#define FERRY_TARGET_TGT_MGMT_H

#include "base/buf.h"
#include "base/cancel.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum tgt_mode {
	TGT_MODE_SYSTEM,
	TGT_MODE_TARGET,
	TGT_MODE_DEVICE,
	TGT_MODE_PORTAL,
	TGT_MODE_LLD,
	TGT_MODE_SESSION,
	TGT_MODE_CONNECTION,
	TGT_MODE_ACCOUNT,
};

enum tgt_op {
	TGT_OP_NEW,
	TGT_OP_DELETE,
	TGT_OP_SHOW,
	TGT_OP_BIND,
	TGT_OP_UNBIND,
	TGT_OP_UPDATE,
	TGT_OP_STAT,
};

/* What tgtd answers; positive, 0 is done. */
enum tgt_error {
	TGT_ERROR_NO_TARGET = 4,
	TGT_ERROR_NO_LUN = 5,
	TGT_ERROR_NO_CONNECTION = 7,
	TGT_ERROR_TARGET_EXISTS = 9,
	TGT_ERROR_NO_USER = 15,
	TGT_ERROR_INVALID_REQUEST = 17,
	TGT_ERROR_TARGET_ACTIVE = 19,
	TGT_ERROR_LUN_ACTIVE = 20,
};

#define TGT_TID_ALL (-1)
/* With its NUL; tgtd resets the connection above. */
#define TGT_PAYLOAD_MAX 8192
/* What of an answer is read; 100 targets make 106 kB. */
#define TGT_REPLY_MAX (4U << 20)

struct tgt_request {
	enum tgt_mode mode;
	enum tgt_op op;
	int32_t tid;
	uint64_t sid;
	uint64_t lun;
	uint32_t cid;
	/* "key=value,..."; NULL: none. tgtd dies of some requests without one, so an
	 * op that has one is refused here without. */
	const char *payload;
};

/* Where to ask, and who must answer. */
struct tgt_mgmt {
	const char *socket_path;
	pid_t pid; /* the listener must be this process; 0: any */
};

/* Asks and reads the whole answer, whose text is appended to ret_text (which may be NULL).
 * 0, an enum tgt_error (positive), or: -EINVAL, -EMSGSIZE request refused here, -ENOENT,
 * -ECONNREFUSED nobody listens, -EPERM somebody else listens, -ETIMEDOUT, -ECANCELED, -EPROTO torn
 * or senseless answer (tgtd died, or refuses our uid). None of them but 0 means it was done; after
 * -ETIMEDOUT, -ECANCELED or -EPROTO it may have been. */
int tgt_mgmt_call(const struct tgt_mgmt *mgmt, const struct tgt_request *request,
	const struct cancel *cancel, uint64_t deadline_usec, struct buf *ret_text);

/* What a positive result means, for people. */
const char *tgt_error_text(int error);

/* Whether s is 1..max characters of letters, digits and those of `extra`. */
bool tgt_is_word(const char *s, size_t max, const char *extra);

#endif
