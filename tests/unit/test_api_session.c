/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/api_fixture.h"

#include "agent/api/sessions.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>

static struct value *login_params(const char *user, const char *password)
{
	return value_append_string(value_append_string(value_new_array(), user), password);
}

static void login_takes_two_to_four_arguments(void **state)
{
	struct api_fixture *fixture = *state;

	for (int n = 2; n <= 4; n++) {
		struct value *params = login_params(API_USER, API_PASSWORD);
		if (n > 2)
			value_append_string(params, "1.0");
		if (n > 3)
			value_append_string(params, "a script");
		char *ref CLEANUP_FREE =
			api_call_text(fixture, "session.login_with_password", params);
		assert_memory_equal(ref, REF_PREFIX, strlen(REF_PREFIX));
		free(fixture->session);
		fixture->session = xstrdup(ref);
		char *originator CLEANUP_FREE = api_call_text(
			fixture, "session.get_originator", params_new(fixture, ref, NULL));
		assert_string_equal(originator, n > 3 ? "a script" : "");
		char *host CLEANUP_FREE = api_call_text(
			fixture, "session.get_this_host", params_new(fixture, ref, NULL));
		assert_string_equal(host, fixture->host_ref);
	}
	api_call_fails(fixture, "MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password",
		value_append_string(value_new_array(), API_USER));
}

static void a_refused_login_waits_without_holding_up_others(void **state)
{
	struct api_fixture *fixture = *state;
	struct dispatcher *dispatcher = api_dispatcher(fixture->api);
	struct request *wrong = request_send(
		dispatcher, "session.login_with_password", login_params(API_USER, "wrong"));
	struct request *unknown = request_send(
		dispatcher, "session.login_with_password", login_params("nobody", API_PASSWORD));
	struct value *result = NULL;
	uint64_t begun = clock_now_usec();

	/* This one comes last and is answered first. */
	char *ref CLEANUP_FREE = api_login(fixture);
	assert_false(request_wait(wrong, 0));
	assert_int_equal(request_end(wrong, &result, &fixture->fault), -EREMOTEIO);
	assert_true(clock_now_usec() - begun >= fixture->login_delay_usec / 2);
	assert_string_equal(fixture->fault.code, "SESSION_AUTHENTICATION_FAILED");
	assert_int_equal(fixture->fault.n_params, 2);
	assert_string_equal(fixture->fault.params[0], API_USER);
	char *text CLEANUP_FREE = xstrdup(fixture->fault.params[1]);
	assert_int_equal(request_end(unknown, &result, &fixture->fault), -EREMOTEIO);
	/* The answer does not tell whether there is such a user. */
	assert_string_equal(fixture->fault.params[0], "nobody");
	assert_string_equal(fixture->fault.params[1], text);
}

static void closing_answers_logins_that_wait(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *result = NULL;

	fixture->login_delay_usec = 3600 * USEC_PER_SEC;
	api_fixture_restart(fixture);
	struct request *wrong = request_send(api_dispatcher(fixture->api),
		"session.login_with_password", login_params(API_USER, "wrong"));
	api_close(fixture->api);
	assert_true(request_end(wrong, &result, &fixture->fault) < 0);
	assert_string_equal(fixture->fault.code, "SESSION_AUTHENTICATION_FAILED");
}

static void a_session_ends_with_logout(void **state)
{
	struct api_fixture *fixture = *state;

	value_free(api_call_ok(fixture, "session.logout", params_new(fixture, NULL)));
	api_call_fails(fixture, "SESSION_INVALID", "VM.get_all", params_new(fixture, NULL));
	assert_string_equal(fixture->fault.params[0], fixture->session);
	api_fixture_restart(fixture);
	api_call_fails(fixture, "SESSION_INVALID", "VM.get_all", params_new(fixture, NULL));
}

static void a_session_survives_a_restart(void **state)
{
	struct api_fixture *fixture = *state;

	api_fixture_restart(fixture);
	value_free(api_call_ok(fixture, "VM.get_all", params_new(fixture, NULL)));
}

static void an_idle_session_ends(void **state)
{
	struct api_fixture *fixture = *state;

	fixture->session_timeout_usec = 600 * USEC_PER_MSEC;
	api_fixture_restart(fixture);
	free(fixture->session);
	fixture->session = api_login(fixture);
	/* In use it lives on, however long. */
	for (int i = 0; i < 6; i++) {
		cancel_sleep(NULL, 200 * USEC_PER_MSEC);
		value_free(api_call_ok(fixture, "VM.get_all", params_new(fixture, NULL)));
	}
	cancel_sleep(NULL, 900 * USEC_PER_MSEC);
	api_call_fails(fixture, "SESSION_INVALID", "VM.get_all", params_new(fixture, NULL));
	assert_false(object_exists(fixture->storage.pool, "session", fixture->session));
}

static char *make_migration_session(struct api_fixture *fixture)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *ref = NULL;

	value_set(fields, "other_config",
		value_set_string(value_new_struct(), SESSION_MIGRATION_KEY, ""));
	value_set(fields, "last_active", value_new_datetime(clock_wall_sec()));
	check_ok(&fixture->fault,
		object_create(fixture->storage.pool, "session", fields, &ref, &fixture->fault));
	return ref;
}

static void a_migrations_session_serves_peer_calls_only(void **state)
{
	struct api_fixture *fixture = *state;
	char *uuid CLEANUP_FREE = uuid_new();

	api_call_fails(
		fixture, "RBAC_PERMISSION_DENIED", "Peer.status", params_new(fixture, uuid, NULL));
	free(fixture->session);
	fixture->session = make_migration_session(fixture);
	api_call_fails(fixture, "RBAC_PERMISSION_DENIED", "VM.get_all", params_new(fixture, NULL));
	api_call_fails(
		fixture, "RBAC_PERMISSION_DENIED", "session.logout", params_new(fixture, NULL));
	/* Past the check, what it asks for is unknown: the answer is the supervisor's. */
	struct value *result CLEANUP_VALUE = NULL;
	int r = api_call(
		fixture, "Peer.status", params_new(fixture, uuid, NULL), &result, &fixture->fault);
	assert_false(r < 0 && (fault_is(&fixture->fault, "RBAC_PERMISSION_DENIED") ||
				      fault_is(&fixture->fault, "SESSION_INVALID")));
	check_ok(&fixture->fault, object_destroy(fixture->storage.pool, "session", fixture->session,
					  &fixture->fault));
	api_call_fails(fixture, "SESSION_INVALID", "Peer.status", params_new(fixture, uuid, NULL));
}

static bool never_busy(void *arg, const char *session)
{
	(void)arg, (void)session;
	return false;
}

static void count_ended(void *arg, const char *session)
{
	(void)session;
	++*(int *)arg;
}

static struct sessions_params params_of(struct api_fixture *fixture, int *n_ended)
{
	return (struct sessions_params){
		.pool = fixture->storage.pool,
		.host_ref = fixture->host_ref,
		.timeout_usec = 3600 * USEC_PER_SEC,
		.is_busy = never_busy,
		.ended = count_ended,
		.arg = n_ended,
	};
}

/* A sender that was away for days must still learn what was decided. */
static void a_session_that_serves_a_migration_does_not_expire(void **state)
{
	struct api_fixture *fixture = *state;
	struct value *long_ago CLEANUP_VALUE = value_new_datetime(1);
	char *unused CLEANUP_FREE = make_migration_session(fixture);
	char *used CLEANUP_FREE = make_migration_session(fixture);
	char *uuid CLEANUP_FREE = uuid_new();
	int n_ended = 0;
	const struct sessions_params params = params_of(fixture, &n_ended);
	struct sessions *sessions = NULL;

	check_ok(&fixture->fault, object_map_set(fixture->storage.pool, "session", used,
					  "other_config", uuid, "", &fixture->fault));
	check_ok(&fixture->fault, object_set_field(fixture->storage.pool, "session", used,
					  "last_active", long_ago, &fixture->fault));
	check_ok(&fixture->fault, object_set_field(fixture->storage.pool, "session", unused,
					  "last_active", long_ago, &fixture->fault));
	check_ok(&fixture->fault, sessions_new(&params, &sessions, &fixture->fault));
	sessions_expire(sessions);
	sessions_free(sessions);
	assert_true(object_exists(fixture->storage.pool, "session", used));
	assert_false(object_exists(fixture->storage.pool, "session", unused));
}

static int touch(struct sessions *sessions, const char *ref, struct fault *fault)
{
	struct session_owner owner CLEANUP_SESSION_OWNER = {0};
	int r = sessions_check(sessions, ref, &owner, fault);

	if (r == 0)
		assert_string_equal(owner.user, "somebody");
	return r;
}

static void the_session_idle_longest_gives_way(void **state)
{
	struct api_fixture *fixture = *state;
	int n_ended = 0;
	const struct sessions_params params = params_of(fixture, &n_ended);
	struct sessions *sessions = NULL;
	char *first CLEANUP_FREE = NULL;
	char *second CLEANUP_FREE = NULL;

	check_ok(&fixture->fault,
		pool_db_set_user(fixture->storage.pool, "somebody", "hash", &fixture->fault));
	check_ok(&fixture->fault, sessions_new(&params, &sessions, &fixture->fault));
	check_ok(&fixture->fault,
		sessions_login(sessions, "somebody", "o", &first, &fixture->fault));
	check_ok(&fixture->fault,
		sessions_login(sessions, "somebody", "o", &second, &fixture->fault));
	for (int i = 2; i < SESSIONS_MAX; i++) {
		char *ref CLEANUP_FREE = NULL;
		check_ok(&fixture->fault,
			sessions_login(sessions, "somebody", "o", &ref, &fixture->fault));
	}
	assert_int_equal(n_ended, 0);
	check_ok(&fixture->fault, touch(sessions, first, &fixture->fault));
	char *last CLEANUP_FREE = NULL;
	check_ok(&fixture->fault,
		sessions_login(sessions, "somebody", "other", &last, &fixture->fault));
	assert_int_equal(n_ended, 1);
	check_ok(&fixture->fault, touch(sessions, first, &fixture->fault));
	assert_true(touch(sessions, second, &fixture->fault) < 0);
	sessions_free(sessions);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			login_takes_two_to_four_arguments, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(a_refused_login_waits_without_holding_up_others,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			closing_answers_logins_that_wait, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_session_ends_with_logout, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_session_survives_a_restart, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			an_idle_session_ends, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(a_session_that_serves_a_migration_does_not_expire,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(a_migrations_session_serves_peer_calls_only,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(the_session_idle_longest_gives_way,
			api_fixture_setup, api_fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
