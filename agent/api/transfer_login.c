/* SPDX-License-Identifier: Apache-2.0 */
/* Who sends a request to an HTTP handler: a session by name, or a user and a password, who is then
 * logged in as by the method, for this request alone. */
#include "agent/api/transfer.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct login {
	int bell;
	struct buf answer;
};

static void on_reply(void *arg, unsigned status, const char *content_type, struct buf *body)
{
	struct login *login = arg;

	(void)status, (void)content_type;
	login->answer = *body;
	*body = (struct buf)BUF_INIT;
	eventfd_write(login->bell, 1);
}

static void encode_login(const struct http_stream *stream, struct buf *out)
{
	struct value *call CLEANUP_VALUE = value_new_struct();
	struct value *params = value_new_array();

	value_append_string(params, http_stream_user(stream));
	value_append_string(params, http_stream_password(stream));
	value_append_string(params, "1.0");
	value_append_string(params, "http");
	value_set_string(call, "jsonrpc", "2.0");
	value_set_string(call, "method", "session.login_with_password");
	value_set(call, "params", params);
	value_set_int(call, "id", 1);
	json_encode(call, out);
	explicit_bzero(params->array.items[1]->string, strlen(params->array.items[1]->string));
}

static int read_answer(const struct buf *answer, char **ret_session, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = NULL;
	int r = json_decode(answer->data, answer->length, NULL, &document, fault);

	if (r < 0)
		return r;
	const char *session = value_find_string(document, "result", NULL);
	const struct value *error = value_find(document, "error");
	const struct value *params = value_find(error, "data");
	if (session) {
		*ret_session = xstrdup(session);
		return 0;
	}
	fault_set(fault, -EACCES, value_find_string(error, "message", "SESSION_INVALID"), NULL);
	for (size_t i = 0; params && fault && i < params->array.n_items; i++)
		fault_add_param(fault, value_string(params->array.items[i], ""));
	return -EACCES;
}

/* Blocks until the password is checked: a wrong one is answered late on purpose. */
static int login(struct transfer *transfer, struct fault *fault)
{
	struct login login = {.bell = eventfd(0, EFD_CLOEXEC)};
	struct buf request CLEANUP_BUF = BUF_INIT;
	eventfd_t count;

	encode_login(transfer->stream, &request);
	dispatcher_handle(transfer->api->dispatcher, WIRE_JSON, request.data, request.length,
		http_stream_peer_address(transfer->stream), on_reply, &login);
	while (eventfd_read(login.bell, &count) < 0 && errno == EINTR)
		;
	explicit_bzero(request.data, request.length);
	close(login.bell);
	int r = read_answer(&login.answer, &transfer->session, fault);
	buf_free(&login.answer);
	transfer->has_own_session = r == 0;
	return r;
}

static int check_member(const struct transfer *transfer, struct fault *fault)
{
	if (!transfer->api->coordinator_address)
		return 0;
	return fault_set(fault, -EACCES, "HOST_IS_SLAVE", transfer->api->coordinator_address, NULL);
}

int transfer_login(struct transfer *transfer, struct fault *fault)
{
	struct http_stream *stream = transfer->stream;
	const char *session = http_stream_query(stream, "session_id");
	int r = 0;

	if (!session)
		session = http_stream_cookie(stream, "session_id");
	if (!session && !http_stream_user(stream))
		return fault_set(fault, -EACCES, "SESSION_INVALID",
			"a session_id in the query or a cookie, or HTTP Basic", NULL);
	if (session)
		transfer->session = xstrdup(session);
	else
		r = check_member(transfer, fault);
	if (r == 0 && !session)
		r = login(transfer, fault);
	if (r == 0)
		r = sessions_check(
			transfer->api->sessions, transfer->session, &transfer->owner, fault);
	if (r == 0 && transfer->owner.kind == SESSION_MIGRATION)
		return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", transfer->handler->name,
			"The session of a migration may make its Peer calls only", NULL);
	return r;
}

void transfer_logout(struct transfer *transfer)
{
	if (transfer->has_own_session)
		sessions_logout(transfer->api->sessions, transfer->session, NULL);
	session_owner_clear(&transfer->owner);
	free(TAKE_PTR(transfer->session));
}
