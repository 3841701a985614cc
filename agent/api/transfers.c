/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/transfers.h"

#include "agent/api/jobs.h"
#include "agent/api/tasks.h"
#include "agent/api/transfer.h"
#include "agent/migrate/raw_disk.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* An error is small, and fits the stream's buffer. */
#define ANSWER_USEC (10 * USEC_PER_SEC)

struct transfers {
	struct api *api;
	struct jobs *jobs;
	atomic_size_t n_running;
	struct http_streams streams;
};

static const struct http_stream_route routes[] = {
	{"/export_raw_vdi", "GET, HEAD", &export_raw_vdi},
	{"/import_raw_vdi", "PUT", &import_raw_vdi},
	{"/export_metadata", "GET", &export_metadata},
	{"/import_metadata", "PUT", &import_metadata},
};

/* --- For handlers -------------------------------------------------------------------------------
 */

const char *transfer_param(const struct transfer *transfer, const char *name)
{
	return http_stream_query(transfer->stream, name);
}

int transfer_bad_param(const char *name, const char *text, struct fault *fault)
{
	return fault_set(fault, -EINVAL, "INVALID_VALUE", name, text, NULL);
}

int transfer_flag(struct transfer *transfer, const char *name, bool *ret_flag, struct fault *fault)
{
	const char *text = transfer_param(transfer, name);

	if (!text)
		return 0;
	if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		return transfer_bad_param(name, "allowed: true, false", fault);
	*ret_flag = strcmp(text, "true") == 0;
	return 0;
}

int transfer_object(struct transfer *transfer, const char *param, const char *class, char **ret_ref,
	struct fault *fault)
{
	const char *text = transfer_param(transfer, param);

	if (!text)
		return transfer_bad_param(
			param, "missing; it must be the object's ref or uuid", fault);
	if (strncmp(text, REF_PREFIX, strlen(REF_PREFIX)) != 0)
		return object_get_by_uuid(transfer->api->pool, class, text, ret_ref, fault);
	int r = object_check(transfer->api->pool, class, text, fault);
	if (r == 0)
		*ret_ref = xstrdup(text);
	return r;
}

void transfer_answer(
	struct transfer *transfer, unsigned status, const char *content_type, uint64_t length)
{
	const struct http_stream_answer answer = {
		.status = status,
		.content_type = content_type,
		.headers = transfer->headers,
		.length = length,
	};

	if (transfer->task)
		value_set_string(transfer->headers, "task-id", transfer->task);
	http_stream_answer(transfer->stream, &answer);
}

static void append_escaped(struct buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
				(c >= 'a' && c <= 'z') || strchr("-._~:/", c);
		if (is_plain)
			buf_append_char(out, *text);
		else
			buf_printf(out, "%%%02X", c);
	}
}

/* The session goes along: the other host does not know who sent the cookie. One that was made for
 * this request is gone by then. */
static char *location_of(const struct transfer *transfer, const char *url)
{
	const struct value *queries = http_stream_queries(transfer->stream);
	struct value *all CLEANUP_VALUE = value_copy(queries);
	static const char *const cookies[] = {"task_id", "subtask_of"};
	struct buf out CLEANUP_BUF = BUF_INIT;

	if (!transfer->has_own_session)
		value_set_string(all, "session_id", transfer->session);
	for (size_t i = 0; i < ARRAY_SIZE(cookies); i++) {
		const char *text = http_stream_cookie(transfer->stream, cookies[i]);
		if (text && !value_find(all, cookies[i]))
			value_set_string(all, cookies[i], text);
	}
	buf_printf(&out, "%s%s", url, http_stream_route(transfer->stream)->path);
	for (size_t i = 0; i < all->record.n_members; i++) {
		buf_append_char(&out, i ? '&' : '?');
		append_escaped(&out, all->record.members[i].name);
		buf_append_char(&out, '=');
		append_escaped(&out, value_string(all->record.members[i].value, ""));
	}
	return buf_take_string(&out);
}

int transfer_redirect(struct transfer *transfer, const char *host, struct fault *fault)
{
	struct host_link link CLEANUP_HOST_LINK = {0};
	int r = host_link_get(transfer->api->pool, host, &link, fault);

	if (r < 0)
		return r;
	if (r == 0)
		return fault_set(fault, -EHOSTDOWN, "HOST_OFFLINE", host, NULL);
	char *location CLEANUP_FREE = location_of(transfer, link.url);
	value_set_string(transfer->headers, "Location", location);
	/* Whoever knows this host by its key may know the other by this. */
	value_set_string(transfer->headers, "X-Ferry-Fingerprint", link.fingerprint);
	transfer_answer(transfer, 302, "text/plain", 0);
	return TRANSFER_ELSEWHERE;
}

/* --- One request --------------------------------------------------------------------------------
 */

static unsigned status_of(const struct fault *fault, int error)
{
	static const struct {
		const char *code;
		unsigned status;
	} known[] = {
		{"SESSION_INVALID", 401},
		{"SESSION_AUTHENTICATION_FAILED", 401},
		{"HOST_IS_SLAVE", 401},
		{"RBAC_PERMISSION_DENIED", 403},
		{"HANDLE_INVALID", 404},
		{"UUID_INVALID", 404},
		{"INVALID_VALUE", 400},
		{"VDI_TOO_SMALL", 400},
		{"IMPORT_ERROR_PREMATURE_EOF", 400},
		{"IMPORT_ERROR", 400},
		{"IMPORT_ERROR_UNEXPECTED_FILE", 400},
		{"IMPORT_ERROR_FAILED_TO_FIND_OBJECT", 400},
		{"IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", 409},
		{"VM_TO_IMPORT_IS_NOT_NEWER_VERSION", 409},
		{"VDI_IN_USE", 409},
		{"VDI_READONLY", 409},
		{"OTHER_OPERATION_IN_PROGRESS", 409},
		{"OPERATION_NOT_ALLOWED", 409},
		{"TASK_CANCELLED", 409},
		{"SR_BACKEND_FAILURE_44", 507},
		{"HOST_OFFLINE", 503},
		{"SR_NOT_ATTACHED", 503},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (fault_is(fault, known[i].code))
			return known[i].status;
	return error == -ESHUTDOWN ? 503 : 500;
}

static void answer_json(struct transfer *transfer, unsigned status, const struct value *body)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	json_encode(body, &text);
	buf_append_char(&text, '\n');
	transfer_answer(transfer, status, "application/json", text.length);
	if (strcmp(http_stream_method(transfer->stream), "HEAD") == 0)
		return;
	for (size_t at = 0, n; at < text.length; at += n) {
		n = MIN(text.length - at, HTTP_STREAM_BUFFER_BYTES);
		if (http_stream_write(transfer->stream, text.data + at, n,
			    clock_deadline(ANSWER_USEC), NULL) < 0)
			return;
	}
}

/* The body is what a task has in error_info. */
static void answer_failure(struct transfer *transfer, const struct fault *fault, int error)
{
	struct value *body CLEANUP_VALUE = value_append_string(value_new_array(), fault->code);
	unsigned status = transfer->status ? transfer->status : status_of(fault, error);

	for (size_t i = 0; i < fault->n_params; i++)
		value_append_string(body, fault->params[i]);
	if (status == 401)
		value_set_string(transfer->headers, "WWW-Authenticate", "Basic realm=\"ferry\"");
	answer_json(transfer, status, body);
}

static int check_role(const struct transfer *transfer, struct fault *fault)
{
	const struct transfer_handler *handler = transfer->handler;

	if (transfer->owner.role <= handler->role)
		return 0;
	char *text CLEANUP_FREE = xasprintf("it is for the role %s; user %s is %s",
		role_name(handler->role), transfer->owner.user, role_name(transfer->owner.role));
	return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", handler->name, text, NULL);
}

static int check_open(const struct api *api, struct fault *fault)
{
	if (!atomic_load(&api->is_joining))
		return 0;
	return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "pool", api->pool_ref,
		"join", "", NULL);
}

static void audit(const struct transfer *transfer, int r, const struct fault *fault)
{
	const char *vdi = transfer_param(transfer, "vdi");
	const char *object = vdi ? vdi : transfer_param(transfer, "ref");

	if (transfer->owner.user)
		log_info("AUDIT",
			"user=\"%s\" role=%s address=%s method=%s object=%s task=%s outcome=%s",
			transfer->owner.user, role_name(transfer->owner.role),
			http_stream_peer_address(transfer->stream), transfer->handler->name,
			object && strncmp(object, REF_PREFIX, strlen(REF_PREFIX)) == 0 ? object
										       : "",
			transfer->task ? transfer->task : "",
			r == TRANSFER_ELSEWHERE ? "redirected"
			: r < 0                 ? fault->code
						: "done");
}

static int run(struct transfer *transfer, struct fault *fault)
{
	int r = check_open(transfer->api, fault);

	if (r == 0)
		r = transfer_login(transfer, fault);
	if (r == 0)
		r = transfer_bind(transfer, fault);
	if (r == 0)
		r = check_role(transfer, fault);
	if (r == 0)
		r = transfer->handler->run(transfer, fault);
	if (r < 0 && !fault->code)
		fault_errno(fault, r, "%s failed", transfer->handler->name);
	return r;
}

/* The task first: whoever has the answer may look at it. */
static void finish(struct transfer *transfer, int r, const struct fault *fault)
{
	bool is_head = strcmp(http_stream_method(transfer->stream), "HEAD") == 0;

	if (r <= 0 && !(is_head && r == 0))
		transfer_end_task(transfer, r < 0 ? fault : NULL);
	audit(transfer, r, fault);
	if (!http_stream_is_answered(transfer->stream) && r < 0)
		answer_failure(transfer, fault, r);
	else if (!http_stream_is_answered(transfer->stream) && transfer->result)
		answer_json(transfer, 200, transfer->result);
	else if (!http_stream_is_answered(transfer->stream))
		transfer_answer(transfer, 200, "text/plain", 0);
}

static void transfer_free(struct transfer *transfer)
{
	value_free(transfer->headers);
	value_free(transfer->result);
	free(transfer->task);
	free(transfer);
}

static void transfer_main(void *arg)
{
	struct transfer *transfer = arg;
	struct transfers *transfers = transfer->api->transfers;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = run(transfer, &fault);

	finish(transfer, r, &fault);
	transfer_logout(transfer);
	http_stream_close(transfer->stream);
	transfer_free(transfer);
	atomic_fetch_sub(&transfers->n_running, 1);
}

/* --- The set ------------------------------------------------------------------------------------
 */

static int begin(void *arg, struct http_stream *stream)
{
	struct transfers *transfers = arg;
	struct transfer *transfer = xcalloc(1, sizeof(*transfer));

	transfer->api = transfers->api;
	transfer->stream = stream;
	transfer->handler = http_stream_route(stream)->data;
	transfer->headers = value_new_struct();
	transfer->n_total = HTTP_STREAM_LENGTH_UNKNOWN;
	atomic_fetch_add(&transfers->n_running, 1);
	int r = jobs_start(transfers->jobs, transfer_main, transfer);
	if (r < 0) {
		atomic_fetch_sub(&transfers->n_running, 1);
		transfer_free(transfer);
	}
	return r;
}

struct transfers *transfers_new(struct api *api)
{
	struct transfers *transfers = xcalloc(1, sizeof(*transfers));

	transfers->api = api;
	transfers->jobs = jobs_new(TRANSFERS_MAX_RUNNING);
	transfers->streams = (struct http_streams){
		.routes = routes,
		.n_routes = ARRAY_SIZE(routes),
		.begin = begin,
		.arg = transfers,
	};
	return transfers;
}

const struct http_streams *transfers_streams(struct transfers *transfers)
{
	return &transfers->streams;
}

void transfers_close(struct transfers *transfers)
{
	jobs_close(transfers->jobs);
}

struct transfers *transfers_free(struct transfers *transfers)
{
	if (!transfers)
		return NULL;
	jobs_free(transfers->jobs);
	free(transfers);
	return NULL;
}

size_t transfers_n_running(struct transfers *transfers)
{
	return atomic_load(&transfers->n_running);
}

/* --- After a restart ----------------------------------------------------------------------------
 */

static void end_task(struct api *api, const char *task)
{
	struct value *config CLEANUP_VALUE = NULL;
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	char *status CLEANUP_FREE = NULL;

	if (object_get_string(api->pool, "task", task, "status", &status, NULL) < 0 ||
		strcmp(status, "pending") != 0 ||
		object_get_field(api->pool, "task", task, "other_config", &config, NULL) < 0)
		return;
	fault_text(&why, -ECANCELED,
		"The agent was restarted after about %s bytes; what a disk holds that was being "
		"written is undefined until all of it is sent again",
		value_find_string(config, TRANSFERRED_KEY, "0"));
	tasks_end_object(api->tasks, task, &why);
}

/* Tasks of transfers whose disk was free again, or whose end could not be told. */
static void end_tasks_of_this_host(struct api *api)
{
	struct value *tasks CLEANUP_VALUE = NULL;

	if (object_find(api->pool, "task", "status", "pending", &tasks, NULL) < 0)
		return;
	for (size_t i = 0; i < tasks->array.n_items; i++) {
		const char *task = value_string(tasks->array.items[i], "");
		struct value *config CLEANUP_VALUE = NULL;
		if (object_get_field(api->pool, "task", task, "other_config", &config, NULL) == 0 &&
			strcmp(value_find_string(config, TASK_TRANSFER_KEY, ""), api->host_ref) ==
				0)
			end_task(api, task);
	}
}

void transfers_recover(struct api *api)
{
	struct resource_row *rows = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	size_t n = 0;
	struct agent_db *agent = api->storage->agent; /* NULL: nothing is done here */
	int r = agent ? resource_list(agent, NULL, RAW_DISK_KIND, &rows, &n, &fault) : 0;

	for (size_t i = 0; i < n; i++) {
		end_task(api, value_find_string(rows[i].detail, "key", ""));
		r = MIN(r, raw_disk_settle_row(api->storage, &rows[i], &fault));
		resource_row_clear(&rows[i]);
	}
	free(rows);
	end_tasks_of_this_host(api);
	if (r == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_error("TRANSFER-LEFTOVER", "error=\"%s\": it is tried again at the next start", text);
}

/* --- Docs ---------------------------------------------------------------------------------------
 */

static const char head[] =
	"## HTTP handlers\n"
	"\n"
	"Paths of their own, because their body or answer is a file. Who asks is a `session_id` in "
	"the query or a cookie, or HTTP\n"
	"Basic; `task_id` and `subtask_of`, there too, name the task to show it. More: "
	"[contract.md](contract.md), section 6.\n"
	"\n"
	"| method | path | role | parameters |\n"
	"|---|---|---|---|\n";

void transfers_print_docs(FILE *out)
{
	fputs(head, out);
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct transfer_handler *handler = routes[i].data;
		fprintf(out, "| %s | `%s` | %s | %s |\n", routes[i].methods, routes[i].path,
			role_name(handler->role), handler->doc);
	}
}
