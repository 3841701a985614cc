/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/file_client.h"

#include "xmlrpc/client_curl.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

/* Hosts that one request is sent on to. */
#define MAX_HOPS 3
/* What an error has to say. */
#define MAX_ERROR_BYTES ((size_t)64 << 10)
/* Nothing at all moves for so long: the connection is dead. */
#define STALL_SEC 120L

struct attempt {
	const struct file_transfer *transfer;
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	char text[CURL_ERROR_SIZE];
	struct buf answer; /* of an upload, or an error */
	int move_error;
	char *location;
	char *fingerprint; /* of the host that location leads to */
};

static long status_of(struct attempt *attempt)
{
	long status = 0;

	curl_easy_getinfo(attempt->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

/* --- libcurl's callbacks ------------------------------------------------------------------------
 */

static size_t on_send(char *data, size_t size, size_t n, void *arg)
{
	struct attempt *attempt = arg;
	ssize_t moved = attempt->transfer->move(attempt->transfer->arg, data, size * n);

	if (moved >= 0)
		return (size_t)moved;
	attempt->move_error = (int)moved;
	return CURL_READFUNC_ABORT;
}

static size_t on_receive(char *data, size_t size, size_t n, void *arg)
{
	struct attempt *attempt = arg;
	const struct file_transfer *transfer = attempt->transfer;
	size_t length = size * n;

	if (status_of(attempt) != 200 || transfer->is_upload) {
		size_t room = MAX_ERROR_BYTES - attempt->answer.length;
		buf_append(&attempt->answer, data, MIN(length, room));
		return length;
	}
	ssize_t moved = transfer->move(transfer->arg, data, length);
	if (moved >= 0)
		return (size_t)moved;
	attempt->move_error = (int)moved;
	return 0;
}

static void take_header(const char *data, size_t length, const char *name, char **value)
{
	size_t n = strlen(name);

	if (length <= n || strncasecmp(data, name, n) != 0)
		return;
	while (n < length && data[n] == ' ')
		n++;
	while (length > n && (data[length - 1] == '\r' || data[length - 1] == '\n'))
		length--;
	free(*value);
	*value = xstrndup(data + n, length - n);
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct attempt *attempt = arg;

	take_header(data, size * n, "Location:", &attempt->location);
	take_header(data, size * n, "X-Ferry-Fingerprint:", &attempt->fingerprint);
	return size * n;
}

static int on_progress(
	void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
	const struct attempt *attempt = arg;
	const struct file_transfer *transfer = attempt->transfer;
	curl_off_t done = transfer->is_upload ? up : down;
	curl_off_t total = transfer->is_upload ? up_total : down_total;

	if (transfer->progress)
		transfer->progress(transfer->arg, (uint64_t)done,
			total > 0 ? (uint64_t)total : FILE_LENGTH_UNKNOWN);
	return 0;
}

/* --- One request --------------------------------------------------------------------------------
 */

static void attempt_clear(struct attempt *attempt)
{
	curl_easy_cleanup(attempt->easy);
	curl_multi_cleanup(attempt->multi);
	curl_slist_free_all(attempt->headers);
	buf_free(&attempt->answer);
	free(attempt->location);
	free(attempt->fingerprint);
}

static void set_upload(struct attempt *attempt)
{
	const struct file_transfer *transfer = attempt->transfer;

	curl_easy_setopt(attempt->easy, CURLOPT_UPLOAD, 1L);
	if (transfer->length != FILE_LENGTH_UNKNOWN)
		curl_easy_setopt(
			attempt->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)transfer->length);
	curl_easy_setopt(attempt->easy, CURLOPT_READFUNCTION, on_send);
	curl_easy_setopt(attempt->easy, CURLOPT_READDATA, attempt);
	/* Always wait for leave to send: nothing of the file is read for a server that refuses, or
	 * that is not the one. */
	attempt->headers = curl_slist_append(NULL, "Expect: 100-continue");
	curl_easy_setopt(attempt->easy, CURLOPT_HTTPHEADER, attempt->headers);
	curl_easy_setopt(attempt->easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 60000L);
}

static int set_up(struct attempt *attempt, const char *url, const struct client_params *server)
{
	client_curl_init();
	attempt->easy = curl_easy_init();
	attempt->multi = curl_multi_init();
	if (!attempt->easy || !attempt->multi)
		abort(); /* out of memory; see base/alloc.h */
	client_curl_set_transfer(attempt->easy, url, attempt->text);
	curl_easy_setopt(attempt->easy, CURLOPT_WRITEFUNCTION, on_receive);
	curl_easy_setopt(attempt->easy, CURLOPT_WRITEDATA, attempt);
	curl_easy_setopt(attempt->easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(attempt->easy, CURLOPT_HEADERDATA, attempt);
	curl_easy_setopt(attempt->easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(attempt->easy, CURLOPT_XFERINFODATA, attempt);
	curl_easy_setopt(attempt->easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(attempt->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(attempt->easy, CURLOPT_LOW_SPEED_TIME, STALL_SEC);
	if (attempt->transfer->is_upload)
		set_upload(attempt);
	return client_curl_set_trust(attempt->easy, server);
}

/* The body of an error is a code and its parameters, as JSON. */
static int refused(struct attempt *attempt, long status, struct fault *fault)
{
	struct value *body CLEANUP_VALUE = NULL;
	const char *code = NULL;

	if (attempt->answer.length)
		json_decode(attempt->answer.data, attempt->answer.length, NULL, &body, NULL);
	if (body && body->type == VALUE_ARRAY && body->array.n_items)
		code = value_string(body->array.items[0], NULL);
	if (!code)
		return fault_text(
			fault, -EREMOTEIO, "the server answered with HTTP status %ld", status);
	fault_set(fault, -EREMOTEIO, code, NULL);
	for (size_t i = 1; fault && i < body->array.n_items; i++)
		fault_add_param(fault, value_string(body->array.items[i], ""));
	return -EREMOTEIO;
}

static int fail(const struct attempt *attempt, const struct client_params *server, int result,
	struct fault *fault)
{
	const char *reason = *attempt->text ? attempt->text : curl_easy_strerror(result);
	bool is_trust = result == CURLE_SSL_PINNEDPUBKEYNOTMATCH ||
			result == CURLE_PEER_FAILED_VERIFICATION;

	/* Behind the path stands the session. */
	char *shown CLEANUP_FREE = xstrndup(server->url, strcspn(server->url, "?"));

	if (attempt->move_error)
		return fault_errno(fault, attempt->move_error, "%s the file",
			attempt->transfer->is_upload ? "reading" : "writing");
	return fault_set(fault, is_trust ? -EKEYREJECTED : -ECONNRESET,
		is_trust ? "TLS_CONNECTION_FAILED" : "CANNOT_CONTACT_HOST", shown, reason, NULL);
}

/* 1: elsewhere. */
static int run(struct attempt *attempt, const struct client_params *server, struct cancel *cancel,
	struct fault *fault)
{
	int result = 0;
	int r = client_curl_perform(attempt->multi, attempt->easy, USEC_FOREVER, cancel, &result);

	if (r < 0)
		return fault_errno(fault, r, "the transfer");
	long status = status_of(attempt);
	if (status == 302 && attempt->location)
		return 1;
	/* An error may come while the file is still being sent, and end that. */
	if (status != 0 && status != 200 && status != 100 && attempt->answer.length)
		return refused(attempt, status, fault);
	if (result != CURLE_OK)
		return fail(attempt, server, result, fault);
	if (status != 200)
		return refused(attempt, status, fault);
	struct value **ret_answer = attempt->transfer->ret_answer;
	return ret_answer && attempt->answer.length
		       ? json_decode(attempt->answer.data, attempt->answer.length, NULL, ret_answer,
				 fault)
		       : 0;
}

static char *make_url(const struct file_transfer *transfer)
{
	struct buf url CLEANUP_BUF = BUF_INIT;
	const struct value *queries = transfer->queries;

	buf_printf(&url, "%s%s", transfer->server.url, transfer->path);
	for (size_t i = 0; i < queries->record.n_members; i++) {
		const struct value_member *member = &queries->record.members[i];
		char *text = curl_easy_escape(NULL, value_string(member->value, ""), 0);
		buf_printf(&url, "%c%s=%s", i ? '&' : '?', member->name, text ? text : "");
		curl_free(text);
	}
	return buf_take_string(&url);
}

int file_transfer(const struct file_transfer *transfer, struct cancel *cancel, struct fault *fault)
{
	struct client_params server = transfer->server;
	char *url CLEANUP_FREE = make_url(transfer);
	char *fingerprint CLEANUP_FREE = NULL;
	int r = 1;

	for (int hops = 0; r == 1 && hops <= MAX_HOPS; hops++) {
		struct attempt attempt = {.transfer = transfer};
		r = set_up(&attempt, url, &server);
		if (r < 0)
			fault_text(fault, r, "the fingerprint \"%s\" is not 64 hex digits",
				server.fingerprint);
		else
			r = run(&attempt, &server, cancel, fault);
		if (r == 1) {
			free(url);
			free(fingerprint);
			url = TAKE_PTR(attempt.location);
			fingerprint = TAKE_PTR(attempt.fingerprint);
			/* The one that is known says who the other is. */
			if (fingerprint)
				server.fingerprint = fingerprint;
			server.url = url;
		}
		attempt_clear(&attempt);
	}
	return r == 1 ? fault_text(fault, -ELOOP, "the server sends this on and on") : r;
}
