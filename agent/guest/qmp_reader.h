/* SPDX-License-Identifier: Apache-2.0 */
/* The QEMU monitor protocol as bytes (QEMU: docs/interop/qmp-spec.txt): lines of JSON in, messages
 * out. No I/O. The other end runs whatever a guest may have made of it, so nothing is believed:
 * lines, values and depth are bounded, and what is no message is an error for good. */
#ifndef FERRY_AGENT_GUEST_QMP_READER_H
#define FERRY_AGENT_GUEST_QMP_READER_H

#include "base/buf.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stddef.h>

/* Longest line; a reply of query-named-block-nodes has about 2 KiB a disk. */
#define QMP_MAX_LINE ((size_t)4 << 20)

enum qmp_kind {
	QMP_GREETING, /* body: the member "QMP" */
	QMP_RETURN,   /* id; body: the member "return" */
	QMP_ERROR,    /* id ("" if there was none); name: its class; text: its description */
	QMP_EVENT,    /* name; body: the member "data", a struct */
	QMP_OTHER,    /* an object that is none of these */
};

struct qmp_message {
	enum qmp_kind kind;
	char *id;
	char *name;
	char *text;
	struct value *body;
};

#define QMP_MESSAGE_INIT                                                                           \
	{                                                                                          \
		0                                                                                  \
	}

struct qmp_reader {
	struct buf bytes; /* not yet read */
	size_t scanned;   /* of them, without a line's end */
	bool broken;
};

void qmp_reader_clear(struct qmp_reader *reader);
/* Bytes as they came, in pieces of any size. -EMSGSIZE: the line is too long, -EBADMSG: an earlier
 * error. */
int qmp_reader_feed(
	struct qmp_reader *reader, const void *data, size_t length, struct fault *fault);
/* 1: *ret_message is the next one (the caller clears it); 0: more bytes are needed; -EBADMSG: the
 * line is no message. */
int qmp_reader_next(
	struct qmp_reader *reader, struct qmp_message *ret_message, struct fault *fault);
void qmp_message_clear(struct qmp_message *message);

#define CLEANUP_QMP_MESSAGE CLEANUP(qmp_message_clear)

#endif
