/* SPDX-License-Identifier: Apache-2.0 */
/* From bytes to handler and back. The order of the checks is XenAPI's: name, number of parameters,
 * their types, Async., session. */
#include "xmlrpc/dispatch.h"

#include "xmlrpc/codec.h"
#include "xmlrpc/params.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

struct dispatcher {
	struct dispatch_hooks hooks;
	void *context;
	const struct method **methods; /* sorted by name */
	size_t n_methods;
};

struct call {
	atomic_int n_refs; /* the answer that is due holds one */
	atomic_bool ended;
	struct dispatcher *dispatcher;
	const struct method *method; /* NULL until found */
	enum wire wire;
	enum json_version version;
	struct json_id id;
	char *wire_name;
	bool async;
	char *session;
	char *user; /* NULL: nobody */
	int role;
	char *peer_address;
	char *task;
	struct cancel *cancel;
	dispatch_reply reply;
	void *reply_arg;
};

/* --- The table ----------------------------------------------------------------------------------
 */

static int compare_rows(const void *a, const void *b)
{
	const struct method *const *left = a;
	const struct method *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

static int compare_name(const void *name, const void *row)
{
	const struct method *const *method = row;

	return strcmp(name, (*method)->name);
}

void dispatcher_add(struct dispatcher *dispatcher, const struct method *methods, size_t n)
{
	size_t total = dispatcher->n_methods + n;

	dispatcher->methods = xrealloc(dispatcher->methods, total, sizeof(struct method *));
	for (size_t i = 0; i < n; i++) {
		assert(methods[i].n_params <= METHOD_MAX_PARAMS);
		assert(methods[i].n_mandatory <= methods[i].n_params);
		dispatcher->methods[dispatcher->n_methods++] = &methods[i];
	}
	qsort(dispatcher->methods, total, sizeof(struct method *), compare_rows);
	for (size_t i = 1; i < total; i++)
		assert(strcmp(dispatcher->methods[i - 1]->name, dispatcher->methods[i]->name) != 0);
}

size_t dispatcher_methods(struct dispatcher *dispatcher, const struct method *const **ret_methods)
{
	*ret_methods = dispatcher->methods;
	return dispatcher->n_methods;
}

static const struct method *find_exact(const struct dispatcher *dispatcher, const char *name)
{
	const struct method **row = bsearch(name, dispatcher->methods, dispatcher->n_methods,
		sizeof(struct method *), compare_name);

	return row ? *row : NULL;
}

/* Class_method for Class.method. A class may have underscores of its own: the first that fits. */
static const struct method *find_alias(const struct dispatcher *dispatcher, const char *name)
{
	const struct method *method = NULL;
	char *dotted CLEANUP_FREE = xstrdup(name);

	if (strlen(name) > 128)
		return NULL;
	for (char *at = strchr(dotted, '_'); at && !method; at = strchr(at + 1, '_')) {
		*at = '.';
		method = find_exact(dispatcher, dotted);
		*at = '_';
	}
	return method;
}

static int list_methods(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct dispatcher *dispatcher = call->dispatcher;

	(void)args, (void)fault;
	*ret_result = value_new_array();
	for (size_t i = 0; i < dispatcher->n_methods; i++)
		if (!(dispatcher->methods[i]->flags & METHOD_HIDDEN))
			value_append_string(*ret_result, dispatcher->methods[i]->name);
	return 0;
}

static const struct method built_in[] = {{
	.name = "system.listMethods",
	.handle = list_methods,
	.flags = METHOD_NO_SESSION | METHOD_BARE,
	.result = "string set",
	.doc = "The names of all methods, without those of Async.",
}};

struct dispatcher *dispatcher_new(const struct dispatch_hooks *hooks, void *context)
{
	struct dispatcher *dispatcher = xcalloc(1, sizeof(*dispatcher));

	dispatcher->hooks = *hooks;
	dispatcher->context = context;
	dispatcher_add(dispatcher, built_in, ARRAY_SIZE(built_in));
	return dispatcher;
}

struct dispatcher *dispatcher_free(struct dispatcher *dispatcher)
{
	if (!dispatcher)
		return NULL;
	free(dispatcher->methods);
	free(dispatcher);
	return NULL;
}

/* --- Calls --------------------------------------------------------------------------------------
 */

struct call *call_ref(struct call *call)
{
	atomic_fetch_add(&call->n_refs, 1);
	return call;
}

struct call *call_unref(struct call *call)
{
	if (!call || atomic_fetch_sub(&call->n_refs, 1) > 1)
		return NULL;
	json_id_clear(&call->id);
	free(call->wire_name);
	free(call->session);
	free(call->user);
	free(call->peer_address);
	free(call->task);
	free(call);
	return NULL;
}

void *call_context(struct call *call)
{
	return call->dispatcher->context;
}

const struct method *call_method(struct call *call)
{
	return call->method;
}

const char *call_wire_name(struct call *call)
{
	return call->wire_name;
}

const char *call_session(struct call *call)
{
	return call->session;
}

const char *call_peer_address(struct call *call)
{
	return call->peer_address;
}

const char *call_user(struct call *call)
{
	return call->user ? call->user : "";
}

int call_role(struct call *call)
{
	return call->role;
}

void call_set_user(struct call *call, const char *user, int role)
{
	free(call->user);
	call->user = xstrdup(user);
	call->role = role;
}

void call_set_task(struct call *call, const char *task_ref, struct cancel *cancel)
{
	free(call->task);
	call->task = xstrdup(task_ref);
	call->cancel = cancel;
}

const char *call_task(struct call *call)
{
	return call->task;
}

struct cancel *call_cancel(struct call *call)
{
	return call->cancel;
}

static const char *content_type(enum wire wire)
{
	/* Exactly so: npm xen-api gives up on any parameter behind them. */
	return wire == WIRE_JSON ? "application/json" : "text/xml";
}

/* Sends the answer and drops the reference that it held. */
static void call_end(struct call *call, struct buf *body)
{
	bool was_ended = atomic_exchange(&call->ended, true);

	assert(!was_ended);
	(void)was_ended;
	call->reply(call->reply_arg, 200, content_type(call->wire), body);
	call_unref(call);
}

void call_succeed(struct call *call, struct value *result)
{
	struct value *owned CLEANUP_VALUE = result;
	struct buf body CLEANUP_BUF = BUF_INIT;

	if (call->wire == WIRE_JSON)
		json_encode_success(owned, call->version, &call->id, &body);
	else if (call->method && call->method->flags & METHOD_BARE)
		xml_encode_bare(owned, &body);
	else
		xml_encode_success(owned, &body);
	call_end(call, &body);
}

void call_fail(struct call *call, const struct fault *fault)
{
	struct buf body CLEANUP_BUF = BUF_INIT;

	assert(fault->code);
	if (call->wire == WIRE_JSON)
		json_encode_failure(fault, call->version, &call->id, &body);
	else
		xml_encode_failure(fault, &body);
	call_end(call, &body);
}

/* --- Checks before the handler ------------------------------------------------------------------
 */

static void args_free(struct value **args, size_t n)
{
	for (size_t i = 0; i < n; i++)
		value_free(args[i]);
	free(args);
}

/* expected and received are counted as XenAPI does: mandatory ones, and without the session (so a
 * call without any parameter "received" -1). */
static int count_mismatch(const struct method *method, size_t n_received, struct fault *fault)
{
	bool has_session = !(method->flags & METHOD_NO_SESSION);
	char *expected CLEANUP_FREE = xasprintf("%zu", method->n_mandatory);
	char *received CLEANUP_FREE = xasprintf("%lld", (long long)n_received - has_session);

	return fault_set(fault, -EINVAL, "MESSAGE_PARAMETER_COUNT_MISMATCH", method->name, expected,
		received, NULL);
}

static int take_session(struct call *call, const struct value *params, struct fault *fault)
{
	if (call->method->flags & METHOD_NO_SESSION)
		return 0;
	const struct value *session = params->array.items[0];
	if (session->type == VALUE_STRING) {
		free(call->session);
		call->session = xstrdup(session->string);
		return 0;
	}
	char *text CLEANUP_FREE =
		xasprintf("%s: parameter 1 (session_id) must be a string; this is a %s",
			call->method->name, value_type_name(session->type));
	return fault_set(fault, -EINVAL, "FIELD_TYPE_ERROR", "session_id", text, NULL);
}

/* One value per declared parameter, NULL where left out. */
static int take_args(
	struct call *call, struct value *params, struct value ***ret_args, struct fault *fault)
{
	const struct method *method = call->method;
	size_t n_session = method->flags & METHOD_NO_SESSION ? 0 : 1;
	size_t n_received = params->array.n_items;

	if (n_received < n_session + method->n_mandatory ||
		n_received > n_session + method->n_params)
		return count_mismatch(method, n_received, fault);
	int r = take_session(call, params, fault);
	if (r < 0)
		return r;
	struct value **args = xcalloc(method->n_params, sizeof(struct value *));
	for (size_t i = n_session; r == 0 && i < n_received; i++) {
		args[i - n_session] = value_take_item(params, i);
		r = param_convert(method, i - n_session, i + 1, &args[i - n_session], fault);
	}
	if (r < 0) {
		args_free(args, method->n_params);
		return r;
	}
	*ret_args = args;
	return 0;
}

static int find_method(struct call *call, struct fault *fault)
{
	static const char async[] = "Async.";
	const char *name = call->wire_name;

	call->async = strncmp(name, async, strlen(async)) == 0;
	if (call->async)
		name += strlen(async);
	call->method = find_exact(call->dispatcher, name);
	if (!call->method && !call->async)
		call->method = find_alias(call->dispatcher, name);
	if (!call->method)
		return fault_set(fault, -ENOSYS, "MESSAGE_METHOD_UNKNOWN", name, NULL);
	return 0;
}

static int check_async(const struct call *call, struct fault *fault)
{
	if (!call->async || call->method->flags & METHOD_ASYNC)
		return 0;
	char *text CLEANUP_FREE =
		xasprintf("No async mode for this operation (rpc: %s)", call->method->name);
	return fault_set(fault, -EINVAL, "Fault", text, NULL);
}

static int check_session(struct call *call, struct fault *fault)
{
	const struct dispatch_hooks *hooks = &call->dispatcher->hooks;

	if (call->method->flags & METHOD_NO_SESSION || !hooks->session_check)
		return 0;
	return hooks->session_check(hooks->arg, call, fault);
}

int call_handle(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct dispatch_hooks *hooks = &call->dispatcher->hooks;

	return hooks->handle ? hooks->handle(hooks->arg, call, args, ret_result, fault)
			     : call->method->handle(call, args, ret_result, fault);
}

static void run_handler(struct call *call, struct value **args)
{
	const struct method *method = call->method;
	struct value *result CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	/* The call may have been ended and freed when a handler answers CALL_PENDING. */
	int r = call_handle(call, args, &result, &fault);
	args_free(args, method->n_params);
	if (r == CALL_PENDING)
		return;
	if (r < 0 && !fault.code)
		fault_errno(&fault, r, "%s failed", method->name);
	if (r < 0)
		call_fail(call, &fault);
	else
		call_succeed(call, TAKE_PTR(result));
}

static int prepare(
	struct call *call, struct value *params, struct value ***ret_args, struct fault *fault)
{
	struct value **args = NULL;
	const struct dispatch_hooks *hooks = &call->dispatcher->hooks;
	int r = find_method(call, fault);

	if (r == 0 && hooks->admit)
		r = hooks->admit(hooks->arg, call->method, fault);
	if (r == 0)
		r = take_args(call, params, &args, fault);
	if (r < 0)
		return r;
	r = check_async(call, fault);
	if (r == 0)
		r = check_session(call, fault);
	if (r < 0) {
		args_free(args, call->method->n_params);
		return r;
	}
	*ret_args = args;
	return 0;
}

/* system.isAlive, with whatever the client puts behind a colon. */
static bool is_alive_probe(const char *name)
{
	static const char probe[] = "system.isAlive";
	size_t length = strlen(probe);

	return strncmp(name, probe, length) == 0 && (name[length] == '\0' || name[length] == ':');
}

static void run_call(struct call *call, struct value *params)
{
	struct dispatch_hooks *hooks = &call->dispatcher->hooks;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value **args = NULL;

	if (is_alive_probe(call->wire_name) && params->array.n_items > 0) {
		call_succeed(call, value_take_item(params, 0));
		return;
	}
	if (prepare(call, params, &args, &fault) < 0)
		call_fail(call, &fault);
	else if (call->async || call->method->flags & METHOD_TASK)
		hooks->task_start(hooks->arg, call, call->async, args);
	else
		run_handler(call, args);
}

/* --- For another host ---------------------------------------------------------------------------
 */

static int execute(
	struct call *call, struct value **args, struct value **ret_result, struct fault *fault)
{
	const struct method *method = call->method;
	int r = method->handle(call, args, ret_result, fault);

	assert(r != CALL_PENDING);
	if (r < 0 && fault && !fault->code)
		fault_errno(fault, r, "%s failed", method->name);
	return r;
}

int dispatcher_execute(struct dispatcher *dispatcher, const struct execution *execution,
	struct value **ret_result, struct fault *fault)
{
	struct value *params CLEANUP_VALUE = value_new_array();
	struct call *call = xcalloc(1, sizeof(*call));
	struct value **args = NULL;

	atomic_init(&call->n_refs, 1);
	call->dispatcher = dispatcher;
	call->wire_name = xstrdup(execution->method);
	call->session = xstrdup("");
	call->peer_address = xstrdup("");
	if (*execution->task)
		call_set_task(call, execution->task, execution->cancel);
	value_append_string(params, execution->session);
	for (size_t i = 0; i < execution->params->array.n_items; i++)
		value_append(params, value_copy(execution->params->array.items[i]));
	int r = find_method(call, fault);
	if (r == 0)
		r = take_args(call, params, &args, fault);
	if (r == 0) {
		r = execute(call, args, ret_result, fault);
		args_free(args, call->method->n_params);
	}
	call_unref(call);
	return r;
}

/* --- Requests -----------------------------------------------------------------------------------
 */

static void append_html(struct buf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			buf_append_string(out, "&lt;");
		else if (*s == '&')
			buf_append_string(out, "&amp;");
		else
			buf_append_char(out, *s);
	}
}

/* XenAPI answers what is no request with HTTP 500 and a page. */
static void reply_bad_request(const struct fault *fault, dispatch_reply reply, void *reply_arg)
{
	struct buf body CLEANUP_BUF = BUF_INIT;

	buf_append_string(&body, "<html><body><h1>HTTP 500 bad request</h1><p>");
	append_html(&body, fault->n_params ? fault->params[0] : fault->code);
	buf_append_string(&body, "</p></body></html>");
	reply(reply_arg, 500, "text/html", &body);
}

static int decode(struct call *call, const void *body, size_t length, struct value **ret_params,
	struct fault *fault)
{
	struct codec_limits limits = codec_limits_request;

	limits.max_bytes = length; /* The server has bounded it already (server_params). */
	if (call->wire == WIRE_JSON)
		return json_decode_call(body, length, &limits, &call->wire_name, ret_params,
			&call->version, &call->id, fault);
	return xml_decode_call(body, length, &limits, &call->wire_name, ret_params, fault);
}

void dispatcher_handle(struct dispatcher *dispatcher, enum wire wire, const void *body,
	size_t length, const char *peer_address, dispatch_reply reply, void *reply_arg)
{
	struct value *params CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct call *call = xcalloc(1, sizeof(*call));

	atomic_init(&call->n_refs, 1);
	call->dispatcher = dispatcher;
	call->wire = wire;
	call->session = xstrdup("");
	call->peer_address = xstrdup(peer_address ? peer_address : "");
	call->reply = reply;
	call->reply_arg = reply_arg;
	int r = decode(call, body, length, &params, &fault);
	if (r == 0) {
		run_call(call, params);
	} else if (r == -EILSEQ) {
		call_fail(call, &fault);
	} else {
		reply_bad_request(&fault, reply, reply_arg);
		call_unref(call);
	}
}
