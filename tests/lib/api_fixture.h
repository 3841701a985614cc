/* SPDX-License-Identifier: Apache-2.0 */
/* An api on real databases in a folder of its own, driven by request bodies: no network. */
#ifndef FERRY_TESTS_LIB_API_FIXTURE_H
#define FERRY_TESTS_LIB_API_FIXTURE_H

#include "tests/lib/check.h"

#include "agent/api/api.h"
#include "base/value.h"
#include "schema/agent_db.h"
#include "schema/pool_db.h"

#include <stdint.h>

#define API_USER     "root"
#define API_PASSWORD "correct horse"
/* What the host has for guests. */
#define API_MEMORY (INT64_C(1) << 30)

struct api_fixture {
	char folder[64];
	struct storage storage;
	struct supervisor_params supervisor_params; /* the supervisor keeps a pointer to it */
	struct supervisor *supervisor;
	struct guests *guests; /* their QEMU is /bin/false */
	struct api *api;
	char *pool_ref;
	char *host_ref;
	char *network_ref;
	char *session;
	uint64_t session_timeout_usec;
	uint64_t login_delay_usec;
	struct fault fault;
};

/* cmocka's setup and teardown: everything open, one session logged in. */
int api_fixture_setup(void **state);
int api_fixture_teardown(void **state);
/* The same databases under a new api, as after a restart of the daemon. */
void api_fixture_restart(struct api_fixture *fixture);

/* A request that may take its time to be answered. */
struct request;
/* params: array, taken over. */
struct request *request_send(
	struct dispatcher *dispatcher, const char *method, struct value *params);
/* Waits; false when there is no answer by then. */
bool request_wait(struct request *request, uint64_t timeout_usec);
/* Waits (for seconds) and reads the answer: 0 with *ret_result, or negative with the fault. Frees
 * the request. */
int request_end(struct request *request, struct value **ret_result, struct fault *fault);

/* Array of the session and strings, which end with NULL. */
struct value *params_new(const struct api_fixture *fixture, ...) __attribute__((sentinel));

/* One call, answered. params: array with the session, taken over. */
int api_call(struct api_fixture *fixture, const char *method, struct value *params,
	struct value **ret_result, struct fault *fault);
/* The call must succeed; the caller frees the result. */
struct value *api_call_ok(struct api_fixture *fixture, const char *method, struct value *params);
/* As text; the caller frees it. */
char *api_call_text(struct api_fixture *fixture, const char *method, struct value *params);
/* The call must fail with that code; its parameters are left in fixture->fault. */
void api_call_fails(
	struct api_fixture *fixture, const char *code, const char *method, struct value *params);
/* Whole JSON-RPC body in, whole body out; the caller frees it. */
char *api_json(struct api_fixture *fixture, const char *body);

/* Logs in anew; the caller frees the session ref. */
char *api_login(struct api_fixture *fixture);
/* Makes a halted VM by VM.create; the caller frees the ref. */
char *api_make_vm(struct api_fixture *fixture, const char *name);

#endif
