/* SPDX-License-Identifier: Apache-2.0 */
/* One request of XenAPI's HTTP handlers: who asks, the task that it is bound to, how far it is.
 *
 *	login -> task and role checked -> handler (begins the task, moves the bytes) -> the task
 *ends
 *	      -> the answer, if there is none yet
 *
 * Runs in a thread of its own, to which all of it belongs. */
#ifndef FERRY_AGENT_API_TRANSFER_H
#define FERRY_AGENT_API_TRANSFER_H

#include "agent/api/context.h"
#include "agent/api/sessions.h"
#include "xmlrpc/http_stream.h"

/* Of a task's other_config: "BYTES of BYTES", or "BYTES". */
#define TRANSFERRED_KEY "ferry:transferred"
/* From transfer_handler.run: the client is to ask another host. */
#define TRANSFER_ELSEWHERE 1

struct transfer {
	struct api *api;
	struct http_stream *stream;
	const struct transfer_handler *handler;

	char *session;
	bool has_own_session; /* made for this request alone */
	struct session_owner owner;

	char *task;    /* ref; NULL: none yet */
	bool is_bound; /* the client's task, which exists and may be used */
	bool is_begun; /* the task shows this transfer */

	struct value *headers; /* of the answer, whichever it is */
	unsigned status;       /* of a failure; 0: what follows from its code */
	struct value *result;  /* of the task, and, as JSON, the answer's body; NULL: none */

	uint64_t n_done;
	uint64_t n_total; /* HTTP_STREAM_LENGTH_UNKNOWN: nobody knows */
	uint64_t next_look_usec;
	uint64_t next_note_usec;
	uint64_t next_touch_usec;
};

struct transfer_handler {
	const char *name;  /* "http/put_import_raw_vdi", as XenAPI's roles name it */
	const char *label; /* of a task that is made for it */
	enum user_role role;
	/* 0, TRANSFER_ELSEWHERE, or negative with a fault. */
	int (*run)(struct transfer *transfer, struct fault *fault);
	const char *doc;
};

extern const struct transfer_handler export_raw_vdi;
extern const struct transfer_handler import_raw_vdi;
extern const struct transfer_handler export_metadata;
extern const struct transfer_handler import_metadata;

/* --- For handlers -------------------------------------------------------------------------------
 */

/* A parameter of the query; NULL when it is not there. */
const char *transfer_param(const struct transfer *transfer, const char *name);
/* INVALID_VALUE [name, text]. */
int transfer_bad_param(const char *name, const char *text, struct fault *fault);
/* Whether it is said, and true; *ret_flag stays as it is otherwise. */
int transfer_flag(struct transfer *transfer, const char *name, bool *ret_flag, struct fault *fault);
/* The object that the parameter names by ref or uuid; the caller frees it. */
int transfer_object(struct transfer *transfer, const char *param, const char *class, char **ret_ref,
	struct fault *fault);
/* Sends the client to that host: TRANSFER_ELSEWHERE. */
int transfer_redirect(struct transfer *transfer, const char *host, struct fault *fault);

/* The client's task, or a new one, shows this transfer from now on. */
int transfer_begin(struct transfer *transfer, uint64_t n_total, struct fault *fault);
/* Bytes of the body: how many, 0 after the last. Blocks. TASK_CANCELLED [task] when the task is to
 * stop, IMPORT_ERROR_PREMATURE_EOF [text]. */
ssize_t transfer_read(struct transfer *transfer, void *data, size_t max, struct fault *fault);
/* With transfer->headers, and the task's ref. */
void transfer_answer(
	struct transfer *transfer, unsigned status, const char *content_type, uint64_t length);
/* Blocks. TASK_CANCELLED, or that the client is gone. */
int transfer_write(struct transfer *transfer, const void *data, size_t length, struct fault *fault);
/* All that was written has gone to the client. */
int transfer_flush(struct transfer *transfer, struct fault *fault);

/* --- Private to transfer*.c ---------------------------------------------------------------------
 */

/* Who asks: session, owner. SESSION_INVALID, SESSION_AUTHENTICATION_FAILED. */
int transfer_login(struct transfer *transfer, struct fault *fault);
void transfer_logout(struct transfer *transfer);
/* The task that the request names may be used: INVALID_VALUE, HANDLE_INVALID,
 * RBAC_PERMISSION_DENIED, OPERATION_NOT_ALLOWED [text], TASK_CANCELLED [task]. */
int transfer_bind(struct transfer *transfer, struct fault *fault);
/* why NULL: done. */
void transfer_end_task(struct transfer *transfer, const struct fault *why);

#endif
