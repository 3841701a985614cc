/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a run of calls, by a pool-admin with a session, of the real method table on real
 * databases: each is answered, within seconds, with a result or a fault. Half of the parameters are
 * what the method asks for, refs of objects that are there included; the others are anything. Left
 * out is what leaves this process: other hosts, and folders of this one. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "tests/lib/api_fixture.h"
#include "xmlrpc/codec.h"
#include "xmlrpc/dispatch.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The objects that calls have made are dropped after so many inputs. */
#define N_INPUTS  200
#define MAX_CALLS 32
#define MAX_DEPTH 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const left_out[] = {"Peer.", "Pool.", "PBD.", "SR.create", "SR.introduce",
	"doctor.", "emergency", "evacuate", "join", "eject", "master", "migrate", "recover",
	"resume", "resolve", "reboot", "shutdown", "migration.", "restart"};

static struct api_fixture *fixture;
static char *vm; /* one that is there */

struct input {
	const uint8_t *at, *end;
};

static unsigned take(struct input *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

static char *take_text(struct input *input)
{
	size_t length = MIN((size_t)(take(input) % 24), (size_t)(input->end - input->at));
	char *text = xstrndup("", 0);

	text = xrealloc(text, length + 1, 1);
	for (size_t i = 0; i < length; i++)
		text[i] = (char)(' ' + take(input) % 95);
	text[length] = '\0';
	return text;
}

static int64_t take_int(struct input *input)
{
	uint64_t n = 0;

	for (unsigned i = take(input) % 9; i; i--)
		n = n << 8 | take(input);
	return (int64_t)n;
}

static struct value *take_anything(struct input *input, unsigned depth);

static struct value *take_members(struct input *input, unsigned depth, bool text_only)
{
	static const char *const names[] = {"name_label", "VDI", "VM", "uuid", "type", "userdevice",
		"virtual_size", "memory_static_max", "other_config", "power_state"};
	struct value *members = value_new_struct();

	for (unsigned n = take(input) % 5; n; n--) {
		char *name CLEANUP_FREE = take_text(input);
		const char *key = take(input) % 2 ? names[take(input) % ARRAY_SIZE(names)] : name;
		char *text CLEANUP_FREE = take_text(input);
		if (text_only)
			value_set_string(members, key, text);
		else
			value_set(members, key, take_anything(input, depth + 1));
	}
	return members;
}

static const char *take_ref(struct input *input)
{
	const char *const refs[] = {vm, fixture->host_ref, fixture->pool_ref, fixture->network_ref,
		fixture->session, REF_NULL, "OpaqueRef:00000000-0000-4000-8000-000000000000"};

	return refs[take(input) % ARRAY_SIZE(refs)];
}

static struct value *take_anything(struct input *input, unsigned depth)
{
	char *text CLEANUP_FREE = NULL;
	struct value *array;

	switch (take(input) % (depth < MAX_DEPTH ? 9 : 6)) {
	case 0:
		return value_new_string(take_ref(input));
	case 1:
		return value_new_int(take_int(input));
	case 2:
		return value_new_bool(take(input) % 2);
	case 3:
		return value_new_double((double)take_int(input) / 1000);
	case 6:
		return take_members(input, depth, false);
	case 7:
		return take_members(input, depth, true);
	case 8:
		array = value_new_array();
		for (unsigned n = take(input) % 5; n; n--)
			value_append(array, take_anything(input, depth + 1));
		return array;
	default:
		text = take_text(input);
		return value_new_string(text);
	}
}

static const char *ref_of(const struct param *param)
{
	const struct {
		const char *doc, *ref;
	} refs[] = {{"VM ref", vm}, {"host ref", fixture->host_ref},
		{"pool ref", fixture->pool_ref}, {"network ref", fixture->network_ref},
		{"session ref", fixture->session}};

	for (size_t i = 0; param->doc && i < ARRAY_SIZE(refs); i++)
		if (strcmp(refs[i].doc, param->doc) == 0)
			return refs[i].ref;
	return NULL;
}

/* Of the declared type. */
static struct value *take_param(struct input *input, const struct param *param)
{
	char *text CLEANUP_FREE = NULL;
	struct value *array;

	if (ref_of(param))
		return value_new_string(ref_of(param));
	switch (param->type) {
	case PARAM_INT:
		return value_new_int(take_int(input));
	case PARAM_BOOL:
		return value_new_bool(take(input) % 2);
	case PARAM_DOUBLE:
		return value_new_double((double)take_int(input) / 1000);
	case PARAM_MAP:
		return take_members(input, 0, true);
	case PARAM_STRUCT:
		return take_members(input, 0, false);
	case PARAM_SET:
	case PARAM_ARRAY:
		array = value_new_array();
		for (unsigned n = take(input) % 5; n; n--) {
			free(text);
			text = take_text(input);
			value_append_string(array, text);
		}
		return array;
	default:
		text = take_text(input);
		return value_new_string(text);
	}
}

static struct value *take_params(struct input *input, const struct method *method)
{
	struct value *params = value_new_array();
	size_t n = method->n_params;

	if (!(method->flags & METHOD_NO_SESSION) && take(input) % 16)
		value_append_string(params, fixture->session);
	if (take(input) % 8 == 0)
		n = take(input) % (METHOD_MAX_PARAMS + 1);
	for (size_t i = 0; i < n; i++)
		value_append(params, i < method->n_params && take(input) % 2
					     ? take_param(input, &method->params[i])
					     : take_anything(input, 0));
	return params;
}

static bool is_left_out(const struct method *method)
{
	for (size_t i = 0; i < ARRAY_SIZE(left_out); i++)
		if (strstr(method->name, left_out[i]))
			return true;
	return false;
}

static void give_up(const char *method, const struct value *params, const char *why)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	xml_encode_call(method, params, &text);
	fprintf(stderr, "%s: %s\n%s\n", method, why, text.data);
	abort();
}

/* One that waits for events ends with its session. */
static void end_waiting(struct request *request)
{
	if (request_wait(request, 300 * USEC_PER_MSEC))
		return;
	struct request *logout = request_send(
		api_dispatcher(fixture->api), "session.logout", params_new(fixture, NULL));
	struct value *nothing CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	(void)request_end(logout, &nothing, &fault);
}

static void call(const struct method *method, struct input *input)
{
	struct value *params CLEANUP_VALUE = take_params(input, method);
	bool is_async = (method->flags & METHOD_ASYNC) && take(input) % 4 == 0;
	char *name CLEANUP_FREE = xasprintf("%s%s", is_async ? "Async." : "", method->name);
	struct value *result CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct request *request =
		request_send(api_dispatcher(fixture->api), name, value_copy(params));

	end_waiting(request);
	if (!request_wait(request, 20 * USEC_PER_SEC))
		give_up(name, params, "no answer");
	if (request_end(request, &result, &fault) < 0 && !fault.code)
		give_up(name, params, "an answer that is neither a result nor a fault");
}

static void end(void)
{
	void *state = fixture;

	free(vm);
	vm = NULL;
	if (fixture)
		api_fixture_teardown(&state);
	fixture = NULL;
}

static void begin_anew(void)
{
	void *state;

	end();
	if (api_fixture_setup(&state) < 0)
		abort();
	fixture = state;
	vm = api_make_vm(fixture, "one");
}

/* Whether the session and the VM are still there. */
static bool is_whole(void)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	return fixture && api_call(fixture, "VM.get_uuid", params_new(fixture, vm, NULL), &result,
				  &fault) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned n_inputs;
	struct input input = {data, data + size};
	const struct method *const *methods;

	log_set_level(LOG_LEVEL_ERROR);
	if (n_inputs == 0)
		atexit(end);
	if (n_inputs++ % N_INPUTS == 0 || !is_whole())
		begin_anew();
	size_t n_methods = dispatcher_methods(api_dispatcher(fixture->api), &methods);
	for (unsigned n = 0; n < MAX_CALLS && input.at < input.end; n++) {
		size_t i = take(&input);
		i = (i << 8 | take(&input)) % n_methods;
		if (!is_left_out(methods[i]))
			call(methods[i], &input);
	}
	return 0;
}
