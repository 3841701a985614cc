/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/api_fixture.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "xmlrpc/codec.h"

#include <crypt.h>
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- Requests ----------------------------------------------------------------------------------
 */

struct request {
	int answered; /* eventfd */
	unsigned status;
	char *content_type;
	struct buf body;
};

static void request_reply(void *arg, unsigned status, const char *content_type, struct buf *body)
{
	struct request *request = arg;
	uint64_t one = 1;

	request->status = status;
	request->content_type = xstrdup(content_type);
	buf_append(&request->body, body->data, body->length);
	if (write(request->answered, &one, sizeof(one)) != sizeof(one))
		abort();
}

static struct request *request_new(void)
{
	struct request *request = xcalloc(1, sizeof(*request));

	request->answered = eventfd(0, EFD_CLOEXEC);
	return request;
}

static void request_free(struct request *request)
{
	close(request->answered);
	free(request->content_type);
	buf_free(&request->body);
	free(request);
}

struct request *request_send(
	struct dispatcher *dispatcher, const char *method, struct value *params)
{
	struct value *owned CLEANUP_VALUE = params;
	struct buf body CLEANUP_BUF = BUF_INIT;
	struct request *request = request_new();

	xml_encode_call(method, owned, &body);
	dispatcher_handle(
		dispatcher, WIRE_XML, body.data, body.length, "192.0.2.1", request_reply, request);
	return request;
}

bool request_wait(struct request *request, uint64_t timeout_usec)
{
	struct pollfd fd = {.fd = request->answered, .events = POLLIN};

	return poll(&fd, 1, clock_poll_timeout(clock_deadline(timeout_usec))) == 1;
}

int request_end(struct request *request, struct value **ret_result, struct fault *fault)
{
	uint64_t count;
	int r;

	assert_true(request_wait(request, 30 * USEC_PER_SEC));
	/* Reading orders what the answering thread wrote before what is read here. */
	assert_int_equal(read(request->answered, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	assert_int_equal(request->status, 200);
	assert_string_equal(request->content_type, "text/xml");
	r = xml_decode_response(request->body.data, request->body.length, &codec_limits_response,
		ret_result, fault);
	request_free(request);
	return r;
}

/* --- Calls -------------------------------------------------------------------------------------
 */

struct value *params_new(const struct api_fixture *fixture, ...)
{
	struct value *params = value_append_string(value_new_array(), fixture->session);
	const char *text;
	va_list args;

	va_start(args, fixture);
	while ((text = va_arg(args, const char *)))
		value_append_string(params, text);
	va_end(args);
	return params;
}

int api_call(struct api_fixture *fixture, const char *method, struct value *params,
	struct value **ret_result, struct fault *fault)
{
	return request_end(
		request_send(api_dispatcher(fixture->api), method, params), ret_result, fault);
}

struct value *api_call_ok(struct api_fixture *fixture, const char *method, struct value *params)
{
	struct value *result = NULL;
	int r = api_call(fixture, method, params, &result, &fixture->fault);

	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fixture->fault);
		print_error("%s: %s\n", method, text);
	}
	assert_int_equal(r, 0);
	return result;
}

char *api_call_text(struct api_fixture *fixture, const char *method, struct value *params)
{
	struct value *result CLEANUP_VALUE = api_call_ok(fixture, method, params);

	assert_int_equal(result->type, VALUE_STRING);
	return xstrdup(result->string);
}

void api_call_fails(
	struct api_fixture *fixture, const char *code, const char *method, struct value *params)
{
	struct value *result CLEANUP_VALUE = NULL;
	int r = api_call(fixture, method, params, &result, &fixture->fault);

	if (r == 0)
		print_error("%s succeeded\n", method);
	assert_int_equal(r, -EREMOTEIO);
	assert_string_equal(fixture->fault.code, code);
}

char *api_json(struct api_fixture *fixture, const char *body)
{
	struct request *request = request_new();
	uint64_t count;

	dispatcher_handle(api_dispatcher(fixture->api), WIRE_JSON, body, strlen(body), "192.0.2.1",
		request_reply, request);
	assert_true(request_wait(request, 30 * USEC_PER_SEC));
	assert_int_equal(read(request->answered, &count, sizeof(count)), sizeof(count));
	char *text = buf_take_string(&request->body);
	request_free(request);
	return text;
}

char *api_login(struct api_fixture *fixture)
{
	struct value *params = value_append_string(value_new_array(), API_USER);

	value_append_string(params, API_PASSWORD);
	return api_call_text(fixture, "session.login_with_password", params);
}

char *api_make_vm(struct api_fixture *fixture, const char *name)
{
	struct value *params = params_new(fixture, NULL);

	value_append(params, value_set_string(value_new_struct(), "name_label", name));
	return api_call_text(fixture, "VM.create", params);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static char *make(struct api_fixture *fixture, const char *class, struct value *fields)
{
	struct value *owned CLEANUP_VALUE = fields;
	char *ref = NULL;

	check_ok(&fixture->fault,
		object_create(fixture->storage.pool, class, owned, &ref, &fixture->fault));
	return ref;
}

static void make_objects(struct api_fixture *fixture)
{
	struct value *metrics = value_set_bool(value_new_struct(), "live", true);
	char *metrics_ref CLEANUP_FREE = make(fixture, "host_metrics", metrics);
	struct value *host = value_set_string(value_new_struct(), "name_label", "host one");

	value_set_string(host, "metrics", metrics_ref);
	value_set_bool(host, "enabled", true);
	fixture->host_ref = make(fixture, "host", host);
	fixture->pool_ref = make(
		fixture, "pool", value_set_string(value_new_struct(), "master", fixture->host_ref));
	fixture->network_ref = make(fixture, "network",
		value_set_string(value_new_struct(), "name_label", "management"));
	fixture->storage.host_ref = fixture->host_ref;
}

static void set_password(struct api_fixture *fixture)
{
	struct crypt_data *data CLEANUP_FREE = xcalloc(1, sizeof(*data));
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];

	/* The least cost: these tests log in often. */
	assert_non_null(crypt_gensalt_rn("$y$", 1, NULL, 0, setting, sizeof(setting)));
	check_ok(&fixture->fault, pool_db_set_user(fixture->storage.pool, API_USER,
					  crypt_r(API_PASSWORD, setting, data), &fixture->fault));
}

static void host_memory(int64_t *ret_total_bytes, int64_t *ret_free_bytes)
{
	*ret_total_bytes = API_MEMORY;
	*ret_free_bytes = API_MEMORY;
}

static void start_guests(struct api_fixture *fixture)
{
	const struct guests_params params = {
		.storage = &fixture->storage,
		.run_dir = fixture->folder,
		.program = "/bin/false",
		.memory = host_memory,
	};

	check_ok(&fixture->fault, guests_new(&params, &fixture->guests, &fixture->fault));
	check_ok(&fixture->fault, guests_recover(fixture->guests, &fixture->fault));
}

static void start_api(struct api_fixture *fixture)
{
	start_guests(fixture);
	fixture->supervisor_params = (struct supervisor_params){
		.storage = &fixture->storage,
		.state_dir = fixture->folder,
		.run_dir = fixture->folder,
		.url = "https://192.0.2.1:1",
		.fingerprint = "00",
		.data_address = "127.0.0.1",
		.tgtd = "/usr/sbin/tgtd",
		.max_sending = 3,
		.max_queued = 100,
		.heartbeat_usec = USEC_PER_SEC,
		.lease_usec = 10 * USEC_PER_SEC,
		.abandon_usec = 60 * USEC_PER_SEC,
		.peer_timeout_usec = USEC_PER_SEC,
	};
	fixture->supervisor = supervisor_new(&fixture->supervisor_params);
	const struct api_params params = {
		.storage = &fixture->storage,
		.supervisor = fixture->supervisor,
		.guests = fixture->guests,
		.host_ref = fixture->host_ref,
		.pool_ref = fixture->pool_ref,
		.session_timeout_usec = fixture->session_timeout_usec,
		.login_delay_usec = fixture->login_delay_usec,
	};
	check_ok(&fixture->fault, api_new(&params, &fixture->api, &fixture->fault));
}

static void stop_api(struct api_fixture *fixture)
{
	supervisor_close(fixture->supervisor);
	guests_close(fixture->guests);
	fixture->api = api_free(fixture->api);
	fixture->supervisor = supervisor_stop(fixture->supervisor);
	fixture->guests = guests_free(fixture->guests);
}

void api_fixture_restart(struct api_fixture *fixture)
{
	stop_api(fixture);
	start_api(fixture);
}

int api_fixture_setup(void **state)
{
	struct api_fixture *fixture = xcalloc(1, sizeof(*fixture));
	struct storage *storage = &fixture->storage;

	strcpy(fixture->folder, "/tmp/ferry-api-XXXXXX");
	if (!mkdtemp(fixture->folder))
		return -1;
	char *pool_path CLEANUP_FREE = xasprintf("%s/pool.db", fixture->folder);
	char *agent_path CLEANUP_FREE = xasprintf("%s/agent.db", fixture->folder);
	check_ok(&fixture->fault, pool_db_open(pool_path, &storage->pool, &fixture->fault));
	check_ok(&fixture->fault, agent_db_open(agent_path, &storage->agent, &fixture->fault));
	make_objects(fixture);
	set_password(fixture);
	fixture->login_delay_usec = 300 * USEC_PER_MSEC;
	start_api(fixture);
	fixture->session = api_login(fixture);
	*state = fixture;
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int api_fixture_teardown(void **state)
{
	struct api_fixture *fixture = *state;

	stop_api(fixture);
	pool_db_close(fixture->storage.pool);
	agent_db_close(fixture->storage.agent);
	nftw(fixture->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(fixture->session);
	free(fixture->host_ref);
	free(fixture->pool_ref);
	free(fixture->network_ref);
	fault_clear(&fixture->fault);
	free(fixture);
	return 0;
}
