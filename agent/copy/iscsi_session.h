/* SPDX-License-Identifier: Apache-2.0 */
/* One iSCSI session of the endpoint: connect, log in, prove that the LUN is the right one, drive
 * the socket, bury what is dead. Seen by endpoint_iscsi.c only, which adds the requests.
 *
 * libiscsi 1.19 re-sends writes silently after a reconnect and leaves pointers to freed tasks
 * behind after a time-out or cancel. So nothing of that is used: no reconnect, no time-outs of its
 * own, and whatever goes wrong kills the session. Memory that the library has seen (tasks, vectors)
 * is kept until it cannot look at it any more. */
#ifndef FERRY_AGENT_COPY_ISCSI_SESSION_H
#define FERRY_AGENT_COPY_ISCSI_SESSION_H

#include "agent/copy/endpoint_impl.h"

/* tgtd decodes LUN numbers above 255 wrongly as libiscsi sends them; an export has this one. */
#define ISCSI_LUN 1

struct iscsi_context;
struct scsi_task;
struct tunnel_link;

struct iscsi_session {
	struct iscsi_context *context; /* NULL once buried */
	struct tunnel_link *link;      /* what it speaks through; NULL: its own connection */
	char *name;                    /* "iqn... at 127.0.0.1:3260" */
	int dead;                      /* 0, or the negative errno that ended it */
	char error[384];               /* why it is dead */
	bool in_library;               /* inside iscsi_service: it must not be entered again */
	/* The one exchange under way while opening or closing. */
	struct {
		bool ended;
		int status;
		struct scsi_task *task;
	} step;
	uint32_t block_bytes;
	uint64_t size_bytes;
	bool unmap_zeroes; /* thin, and what was unmapped reads as zeros (LBPME and LBPRZ) */
};

/* Connects, logs in, eats unit attentions, compares serial and capacity with spec. The session is
 * the caller's to end, also after a failure. */
int iscsi_session_open(struct iscsi_session *session, const struct endpoint_spec *spec,
	uint64_t deadline_usec, struct cancel *cancel, struct fault *fault);

/* Logs out, if the session is sound, waiting for the answer at most until the deadline. */
void iscsi_session_logout(struct iscsi_session *session, uint64_t deadline_usec);

/* Destroys the library's context: sockets, queues. Callbacks are called with a status of
 * cancelled, `dead` being set before. Repeatable. */
void iscsi_session_bury(struct iscsi_session *session);

/* Releases what is left; the session is buried if it was not. */
void iscsi_session_deinit(struct iscsi_session *session);

/* Declares it dead; the first cause is kept. Returns it. */
int iscsi_session_die(struct iscsi_session *session, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Waits once for the socket or wake_fd (-1: none) and lets the library work. 1: it worked or
 * wake_fd is readable (*ret_woken), 0: deadline, -ECANCELED. Look at `dead` afterwards. */
int iscsi_session_pump(struct iscsi_session *session, int wake_fd, uint64_t deadline_usec,
	struct cancel *cancel, bool *ret_woken);

/* Lets the library write what is queued, without waiting. */
void iscsi_session_kick(struct iscsi_session *session);

/* Whether nothing is queued or half-written: the library holds no pointer to ended tasks. */
bool iscsi_session_is_drained(const struct iscsi_session *session);

#endif
