/* SPDX-License-Identifier: Apache-2.0 */
/* The method table and what happens between a request's bytes and a handler: decode, find the
 * method, count and check the parameters, check the session, call, encode.
 *
 * One row per method: name, parameter types, handler, whether Async. exists. The table is what
 * system.listMethods and docs/api.md are made of. */
#ifndef FERRY_XMLRPC_DISPATCH_H
#define FERRY_XMLRPC_DISPATCH_H

#include "base/buf.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stddef.h>

struct call;
struct dispatcher;
struct method;
struct cancel;

enum param_type {
	PARAM_STRING, /* refs and enums too */
	PARAM_INT,    /* an int, or decimal text; also a whole JSON number */
	PARAM_BOOL,
	PARAM_DOUBLE,   /* double, int, or decimal text */
	PARAM_DATETIME, /* dateTime.iso8601 or its text */
	PARAM_MAP,      /* struct whose values are all strings */
	PARAM_SET,      /* array of strings */
	PARAM_STRUCT,   /* any struct */
	PARAM_ARRAY,    /* any array */
	PARAM_ANY,
};

struct param {
	const char *name;
	enum param_type type;
	const char *doc; /* wire type as XenAPI writes it ("VM ref"); NULL: from type */
};

#define METHOD_MAX_PARAMS 10

enum method_flags {
	METHOD_NO_SESSION = 1 << 0, /* login, system.listMethods: params are all the wire has */
	METHOD_ASYNC = 1 << 1,      /* Async.<name> exists; see task_runner */
	METHOD_TASK = 1 << 2,       /* long work: also the synchronous call runs as a task */
	METHOD_BARE = 1 << 3,       /* XML answer without Status (system.listMethods) */
	METHOD_HIDDEN = 1 << 4,     /* not in system.listMethods (Peer.*) */
	METHOD_PEER = 1 << 5,       /* needs a migration session, which serves nothing else */
	METHOD_POOL = 1 << 6, /* needs the secret of a host of the pool, which serves no more */
	METHOD_EMERGENCY = 1 << 7, /* members serve it too, with sessions of their own */
};

/* A handler is done when it returns: 0 with *ret_result (NULL: void), or negative with a fault. Or
 * it returns CALL_PENDING, has kept `call`, and somebody ends it by call_succeed or call_fail,
 * exactly once, from any thread, possibly before the handler has returned. Handlers run on worker
 * threads and must not block for longer than a database access (long work: METHOD_TASK). args: one
 * value per declared parameter, of the declared type, NULL for optional ones left out; they are
 * freed when the handler returns, so one that answers CALL_PENDING copies what it needs. */
#define CALL_PENDING 1
typedef int (*method_handler)(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault);

struct method {
	const char *name; /* "VM.migrate_send" */
	method_handler handle;
	unsigned flags;
	const struct param *params; /* without the session */
	size_t n_params;
	size_t n_mandatory;
	const char *result; /* wire type of the result, for docs: "void", "VM ref" */
	const char *doc;    /* one sentence */
	const void *data;   /* the handler's own (generated accessors: the field) */
	int role;           /* the least that the caller must be, as the layers above count */
};

/* What the layers above give. session_check: may the call's session call its
 * method? -EACCES with SESSION_INVALID and the like; it says who calls by call_set_user. task_start
 * runs call->method as a task: creates it, starts work, and (for Async.) ends the call with the
 * task's ref at once, or (for the synchronous METHOD_TASK) ends it when the work is done. It owns
 * args from there on: a malloc'd array of method->n_params values, NULL where left out. Work that
 * outlives the answer, as that of Async., holds the call by call_ref. */
struct dispatch_hooks {
	/* Optional: whether this host answers the method at all; asked before all else. */
	int (*admit)(void *arg, const struct method *method, struct fault *fault);
	/* Optional: in the place of method->handle, with its rules. */
	int (*handle)(void *arg, struct call *call, struct value *const *args,
		struct value **ret_result, struct fault *fault);
	int (*session_check)(void *arg, struct call *call, struct fault *fault);
	void (*task_start)(void *arg, struct call *call, bool async, struct value **args);
	void *arg;
};

struct dispatcher *dispatcher_new(const struct dispatch_hooks *hooks, void *context);
struct dispatcher *dispatcher_free(struct dispatcher *dispatcher);

/* Adds rows (kept by pointer; they outlive the dispatcher). All before the first request. A name
 * twice is a programming error. Built in: system.listMethods, system.isAlive:<any> (echoes its
 * first parameter), and for each synchronous Class.method the alias Class_method (event_from). */
void dispatcher_add(struct dispatcher *dispatcher, const struct method *methods, size_t n);
/* All rows, sorted by name; for docs. */
size_t dispatcher_methods(struct dispatcher *dispatcher, const struct method *const **ret_methods);

enum wire { WIRE_XML, WIRE_JSON };

/* Handles one request body. `reply` is called exactly once, from any thread, with the whole answer:
 * status 200 (also for API failures), or 500 text/html for bytes that are no request. It may take
 * the body (leaving it empty) and must not block. The body's size is the server's to bound; depth
 * and number of values are bounded by codec_limits_request. */
typedef void (*dispatch_reply)(
	void *arg, unsigned status, const char *content_type, struct buf *body);
void dispatcher_handle(struct dispatcher *dispatcher, enum wire wire, const void *body,
	size_t length, const char *peer_address, dispatch_reply reply, void *reply_arg);

/* Runs a method that another host of the pool has admitted and checked, in this thread, as part of
 * a task if there is one. Not for methods that answer CALL_PENDING. */
struct execution {
	const char *method;
	const char *session;
	const char *task; /* "": none */
	struct cancel *cancel;
	const struct value *params; /* array, without the session */
};
int dispatcher_execute(struct dispatcher *dispatcher, const struct execution *execution,
	struct value **ret_result, struct fault *fault);

/* --- For handlers -------------------------------------------------------------------------------
 */

void *call_context(struct call *call); /* as given to dispatcher_new */
const struct method *call_method(struct call *call);
const char *call_wire_name(struct call *call); /* "Async.VM.migrate_send" */
const char *call_session(struct call *call);   /* session ref; "" if none */
const char *call_peer_address(struct call *call);
/* Who calls, and what they are, on the scale of method->role; "" and 0 where nobody logged in:
 * other hosts, and methods without a session. */
const char *call_user(struct call *call);
int call_role(struct call *call);
void call_set_user(struct call *call, const char *user, int role);
/* The task that runs this call, and its cancel token; NULL outside tasks. Set by task_start. */
void call_set_task(struct call *call, const char *task_ref, struct cancel *cancel);
const char *call_task(struct call *call);
struct cancel *call_cancel(struct call *call);
/* Keeps the call readable (all of the above) after its end, until call_unref; it is still ended
 * exactly once. */
struct call *call_ref(struct call *call);
struct call *call_unref(struct call *call);

/* Runs the handler, or what hooks.handle has in its place. For whoever runs tasks. */
int call_handle(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault);

/* Ends a pending call. The result (NULL: void) is taken over; the fault is left to the caller. */
void call_succeed(struct call *call, struct value *result);
void call_fail(struct call *call, const struct fault *fault);

#endif
