/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to one QEMU's monitor. Any thread may call; each call has a slot of its own for its
 * reply, found by id, so that slow commands do not hold up others and a late reply disturbs nobody.
 * A peer that breaks the protocol, or goes, makes the connection dead for good: every call in it
 * and every later one fails at once, and `lost` is told. */
#ifndef FERRY_AGENT_GUEST_QMP_H
#define FERRY_AGENT_GUEST_QMP_H

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct qmp;

struct qmp_params {
	const char *path;            /* of its socket */
	uint64_t deadline_usec;      /* for connection, greeting and capabilities: QEMU serves one
				      * client at a time, and lets a second one wait without a word */
	const struct cancel *cancel; /* for the same; may be NULL */
	/* Called from the connection's own thread, one at a time; they must neither call qmp_* nor
	 * wait for one who does. event: data is a struct. lost: once, when the connection died; not
	 * after qmp_close has begun. Either may be NULL. */
	void (*event)(void *arg, const char *name, const struct value *data);
	void (*lost)(void *arg, const char *reason);
	void *arg;
};

/* Connects, reads the greeting (whatever stands before it is skipped), negotiates capabilities with
 * out-of-band commands if QEMU has them, starts the thread. Negative errno of connect(2),
 * -ETIMEDOUT, -ECANCELED, -EBADMSG, -ECONNRESET. */
int qmp_open(const struct qmp_params *params, struct qmp **ret_qmp, struct fault *fault);
/* Ends the thread and every call (which fail); no thread may still be in a call when it returns.
 * NULL is fine. */
struct qmp *qmp_close(struct qmp *qmp);

/* The process that listens on the socket, as the kernel says (SO_PEERCRED). */
pid_t qmp_peer(const struct qmp *qmp);

/* One command, answered. arguments: a struct, or NULL for none; left to the caller. *ret_value
 * (which may be NULL) is what "return" held. -EREMOTEIO: QEMU refused, the fault has its words;
 * -ETIMEDOUT; -ECANCELED; -ECONNRESET: the connection is dead. After a time-out or cancel the
 * command may still be carried out. */
int qmp_call(struct qmp *qmp, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault);
/* The same with an open file that goes along (add-fd): QEMU has a descriptor of its own then, and
 * the caller keeps this one. -EBUSY: another call of that kind is under way. */
int qmp_call_fd(struct qmp *qmp, const char *command, const struct value *arguments, int fd,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault);
/* The same out of band: answered even while QEMU's main loop hangs, for the few commands that may
 * (migrate-recover, yank ...). -EOPNOTSUPP: this QEMU does not offer it. */
int qmp_call_oob(struct qmp *qmp, const char *command, const struct value *arguments,
	uint64_t deadline_usec, const struct cancel *cancel, struct value **ret_value,
	struct fault *fault);

DEFINE_CLEANUP(struct qmp *, qmp_close)
#define CLEANUP_QMP CLEANUP(cleanup_qmp_close)

#endif
