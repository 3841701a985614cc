/* SPDX-License-Identifier: Apache-2.0 */
/* One easy handle in one multi handle: libcurl does the protocol, the waiting is ours.
 *
 * libcurl re-sends a POST by itself when a kept connection dies before the answer. A call that is
 * not idempotent could then run twice, so the body comes from a callback that cannot be rewound:
 * libcurl fails such a call instead, once a byte of it has left. */
#include "xmlrpc/client.h"

#include "xmlrpc/client_curl.h"
#include "xmlrpc/codec.h"
#include "xmlrpc/tls.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

#define CONNECT_TIMEOUT_MSEC 15000L
/* Below the time after which a server closes an idle connection, else the two may cross. */
#define IDLE_MAX_SEC 100L

struct client {
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	char *host;
	char *port;
	char *address; /* host:port, for messages */
	char *invalid; /* why no call can be made; NULL: it can */
	char error[CURL_ERROR_SIZE];

	/* Of the call under way. */
	struct buf request;
	size_t n_sent;
	char *answer;
	size_t n_answer;
	size_t answer_capacity;
	bool answer_too_big;
	bool quiet;
};

/* --- libcurl's callbacks ------------------------------------------------------------------------
 */

static size_t on_send(char *data, size_t size, size_t n, void *arg)
{
	struct client *client = arg;
	size_t length = MIN(size * n, client->request.length - client->n_sent);

	memcpy(data, client->request.data + client->n_sent, length);
	client->n_sent += length;
	return length;
}

static size_t on_receive(char *data, size_t size, size_t n, void *arg)
{
	struct client *client = arg;
	size_t length = size * n;
	size_t need = client->n_answer + length;

	if (need > codec_limits_response.max_bytes) {
		client->answer_too_big = true;
		return 0;
	}
	if (need > client->answer_capacity) {
		size_t capacity = MAX(need, client->answer_capacity * 2);
		char *answer = realloc(client->answer, capacity); /* sized by the peer */
		if (!answer)
			return 0;
		client->answer = answer;
		client->answer_capacity = capacity;
	}
	memcpy(client->answer + client->n_answer, data, length);
	client->n_answer += length;
	return length;
}

/* --- Making one ---------------------------------------------------------------------------------
 */

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

void client_curl_init(void)
{
	pthread_once(&once, init_curl);
}

static void read_address(struct client *client, const char *url)
{
	CURLU *parts = curl_url();
	char *host = NULL;
	char *port = NULL;

	if (curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK) {
		curl_url_get(parts, CURLUPART_HOST, &host, 0);
		curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
	}
	if (!host || !port)
		client->invalid = xasprintf("\"%s\" is no https://host:port", url);
	client->host = xstrdup(host ? host : url);
	client->port = xstrdup(port ? port : "");
	client->address = xasprintf("%s%s%s", client->host, *client->port ? ":" : "", client->port);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(parts);
}

int client_curl_set_trust(void *easy, const struct client_params *params)
{
	bool is_pinned = params->fingerprint && *params->fingerprint;
	char *pin CLEANUP_FREE = NULL;

	if (!is_pinned) {
		if (params->ca_file)
			curl_easy_setopt(easy, CURLOPT_CAINFO, params->ca_file);
		return 0;
	}
	int r = tls_fingerprint_pin(params->fingerprint, &pin);
	/* The pin alone says who the peer is; its certificate is self-signed. libcurl compares
	 * within the handshake. */
	curl_easy_setopt(easy, CURLOPT_PINNEDPUBLICKEY, pin);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	/* Or it would read the system's hundred certificates at each connection: 25 ms. */
	curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	return r;
}

void client_curl_set_transfer(void *easy, const char *url, char *error_text)
{
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MSEC);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_MAX_SEC);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "ferry/" FERRY_VERSION);
}

static void set_transfer(struct client *client, const struct client_params *params)
{
	client_curl_set_transfer(client->easy, params->url, client->error);
	curl_easy_setopt(client->easy, CURLOPT_HTTPHEADER, client->headers);
	curl_easy_setopt(client->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(client->easy, CURLOPT_READFUNCTION, on_send);
	curl_easy_setopt(client->easy, CURLOPT_READDATA, client);
	curl_easy_setopt(client->easy, CURLOPT_WRITEFUNCTION, on_receive);
	curl_easy_setopt(client->easy, CURLOPT_WRITEDATA, client);
	if (client_curl_set_trust(client->easy, params) < 0 && !client->invalid)
		client->invalid = xasprintf(
			"the fingerprint \"%s\" is not 64 hex digits", params->fingerprint);
}

struct client *client_new(const struct client_params *params)
{
	struct client *client = xcalloc(1, sizeof(*client));

	client_curl_init();
	client->easy = curl_easy_init();
	client->multi = curl_multi_init();
	if (!client->easy || !client->multi)
		abort(); /* out of memory; see base/alloc.h */
	client->headers = curl_slist_append(NULL, "Content-Type: text/xml");
	client->headers = curl_slist_append(client->headers, "Expect:");
	client->quiet = params->quiet;
	read_address(client, params->url);
	set_transfer(client, params);
	return client;
}

struct client *client_free(struct client *client)
{
	if (!client)
		return NULL;
	curl_easy_cleanup(client->easy);
	curl_multi_cleanup(client->multi);
	curl_slist_free_all(client->headers);
	buf_free(&client->request);
	free(client->answer);
	free(client->host);
	free(client->port);
	free(client->address);
	free(client->invalid);
	free(client);
	return NULL;
}

/* --- One call -----------------------------------------------------------------------------------
 */

static int fail(struct client *client, int error, const char *method, const char *reason,
	struct fault *fault)
{
	bool quiet = error == -ECANCELED || client->quiet;

	log_write(quiet ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "client_call_failed",
		"peer=%s method=%s error=%d reason=\"%s\"", client->address, method, -error,
		reason);
	if (error == -EKEYREJECTED)
		return fault_set(fault, error, "TLS_CONNECTION_FAILED", client->host, client->port,
			reason, NULL);
	return fault_set(fault, error, "CANNOT_CONTACT_HOST", client->address, reason, NULL);
}

/* Waits until libcurl has something to do. */
static int wait_some(CURLM *multi, uint64_t deadline_usec, struct cancel *cancel)
{
	struct curl_waitfd extra = {.fd = cancel_fd(cancel), .events = CURL_WAIT_POLLIN};
	int timeout = clock_poll_timeout(deadline_usec);

	/* libcurl shortens this to its own timers. */
	if (timeout < 0)
		timeout = 60000;
	curl_multi_poll(multi, &extra, cancel ? 1 : 0, timeout, NULL);
	if (cancel_is_requested(cancel))
		return -ECANCELED;
	return clock_now_usec() >= deadline_usec ? -ETIMEDOUT : 0;
}

static CURLcode transfer_result(CURLM *multi)
{
	CURLMsg *message;
	int n_left;

	while ((message = curl_multi_info_read(multi, &n_left)))
		if (message->msg == CURLMSG_DONE)
			return message->data.result;
	return CURLE_FAILED_INIT;
}

int client_curl_perform(
	void *multi, void *easy, uint64_t deadline_usec, struct cancel *cancel, int *ret_result)
{
	int n_running = 1;
	int r = cancel_is_requested(cancel) ? -ECANCELED : 0;

	curl_multi_add_handle(multi, easy);
	while (r == 0) {
		CURLMcode code = curl_multi_perform(multi, &n_running);
		if (code != CURLM_OK || n_running == 0)
			break;
		r = wait_some(multi, deadline_usec, cancel);
	}
	if (r == 0)
		*ret_result = (int)transfer_result(multi);
	/* Closes the connection of a transfer that has not ended. */
	curl_multi_remove_handle(multi, easy);
	return r;
}

/* libcurl tries a second connection when the kept one breaks under a request, and then says only
 * that this one failed: the request may have been read all the same. */
static int connect_error(struct client *client)
{
	long os_error = 0;

	if (client->n_sent > 0)
		return -ECONNRESET;
	curl_easy_getinfo(client->easy, CURLINFO_OS_ERRNO, &os_error);
	return os_error == ECONNREFUSED ? -ECONNREFUSED : -EHOSTUNREACH;
}

static int error_of(struct client *client, CURLcode result)
{
	switch (result) {
	case CURLE_COULDNT_CONNECT:
		return connect_error(client);
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_OPERATION_TIMEDOUT: /* of connecting: there is no other of libcurl's */
		return client->n_sent > 0 ? -ECONNRESET : -EHOSTUNREACH;
	case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
		return -EKEYREJECTED;
	case CURLE_WRITE_ERROR: /* on_receive */
		return client->answer_too_big ? -EBADMSG : -ENOMEM;
	default:
		return -ECONNRESET;
	}
}

static int check_status(struct client *client, const char *method, struct fault *fault)
{
	char reason[64];
	long status = 0;

	curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200)
		return 0;
	snprintf(reason, sizeof(reason), "HTTP status %ld", status);
	/* 503: the server closes, the call did not run. */
	return fail(client, status == 503 ? -ECONNREFUSED : -EBADMSG, method, reason, fault);
}

static int read_answer(
	struct client *client, const char *method, struct value **ret_result, struct fault *fault)
{
	struct fault local CLEANUP_FAULT = FAULT_INIT;
	int r = check_status(client, method, fault);

	if (r < 0)
		return r;
	r = xml_decode_response(client->answer ? client->answer : "", client->n_answer,
		&codec_limits_response, ret_result, &local);
	if (r == -EREMOTEIO)
		fault_move(fault, &local);
	if (r == 0 || r == -EREMOTEIO)
		return r;
	return fail(client, -EBADMSG, method, local.n_params ? local.params[0] : "", fault);
}

static void forget_call(struct client *client)
{
	buf_free(&client->request);
	free(client->answer);
	client->answer = NULL;
	client->n_sent = client->n_answer = client->answer_capacity = 0;
	client->answer_too_big = false;
	client->error[0] = '\0';
}

static int send_call(struct client *client, const char *method, uint64_t deadline_usec,
	struct cancel *cancel, struct fault *fault)
{
	int result = CURLE_OK;
	curl_off_t length = (curl_off_t)client->request.length;

	curl_easy_setopt(client->easy, CURLOPT_POSTFIELDSIZE_LARGE, length);
	int r = client_curl_perform(client->multi, client->easy, deadline_usec, cancel, &result);
	if (r == -ECANCELED)
		return fail(client, r, method, "cancelled while the call was under way", fault);
	if (r == -ETIMEDOUT)
		return fail(client, r, method, "no answer before the deadline", fault);
	if (result == CURLE_OK)
		return 0;
	if (client->answer_too_big)
		return fail(client, -EBADMSG, method, "the answer is too big", fault);
	return fail(client, error_of(client, (CURLcode)result), method,
		*client->error ? client->error : curl_easy_strerror((CURLcode)result), fault);
}

int client_call(struct client *client, const char *method, const struct value *params,
	uint64_t deadline_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault)
{
	if (client->invalid)
		return fail(client, -EINVAL, method, client->invalid, fault);
	xml_encode_call(method, params, &client->request);
	int r = send_call(client, method, deadline_usec, cancel, fault);
	if (r == 0)
		r = read_answer(client, method, ret_result, fault);
	forget_call(client);
	return r;
}
