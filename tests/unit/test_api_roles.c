/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/api_fixture.h"

#include "agent/api/roles.h"
#include "base/alloc.h"
#include "base/uuid.h"
#include "xmlrpc/dispatch.h"

#include <errno.h>

#define PASSWORD "a password"

static char *login(struct api_fixture *f, const char *user, const char *password)
{
	return api_call_text(f, "session.login_with_password",
		value_append_string(value_append_string(value_new_array(), user), password));
}

static void make_user(struct api_fixture *f, const char *name, const char *role)
{
	value_free(api_call_ok(f, "user.create", params_new(f, name, PASSWORD, role, NULL)));
}

/* Takes the fixture's session over to a user of that role; the caller gives it back. */
static char *become(struct api_fixture *f, const char *name)
{
	char *before = f->session;

	f->session = login(f, name, PASSWORD);
	return before;
}

static void be_again(struct api_fixture *f, char *session)
{
	free(f->session);
	f->session = session;
}

/* --- Every method and every role -------------------------------------------------------------- */

static struct value *junk(const struct param *param)
{
	switch (param->type) {
	case PARAM_STRING:
		return value_new_string("OpaqueRef:nothing");
	case PARAM_INT:
		return value_new_int(-1);
	case PARAM_BOOL:
		return value_new_bool(false);
	case PARAM_DOUBLE:
		return value_new_double(0);
	case PARAM_DATETIME:
		return value_new_datetime(0);
	case PARAM_MAP:
	case PARAM_STRUCT:
		return value_new_struct();
	case PARAM_SET:
	case PARAM_ARRAY:
		return value_new_array();
	case PARAM_ANY:
		break;
	}
	return value_new_string("");
}

static bool is_denied(struct api_fixture *f, const struct method *method)
{
	struct value *params = params_new(f, NULL);
	struct value *result CLEANUP_VALUE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	for (size_t i = 0; i < method->n_mandatory; i++)
		value_append(params, junk(&method->params[i]));
	int r = api_call(f, method->name, params, &result, &fault);
	bool denied = r < 0 && fault_is(&fault, "RBAC_PERMISSION_DENIED");
	if (denied)
		assert_string_equal(fault.params[0], method->name);
	return denied;
}

/* For users, and with no effect on the test itself. */
static bool is_asked(const struct method *method)
{
	return !(method->flags & (METHOD_NO_SESSION | METHOD_PEER | METHOD_POOL)) &&
	       strcmp(method->name, "session.logout") != 0;
}

static void each_method_is_for_its_role_and_those_above(void **state)
{
	struct api_fixture *f = *state;
	const struct method *const *methods;
	size_t n = dispatcher_methods(api_dispatcher(f->api), &methods);
	size_t n_asked = 0;

	for (int role = USER_POOL_ADMIN; role < N_USER_ROLES; role++) {
		const char *name = role_name((enum user_role)role);
		make_user(f, name, name);
		char *before = become(f, name);
		for (size_t i = 0; i < n; i++) {
			if (!is_asked(methods[i]))
				continue;
			n_asked++;
			if (is_denied(f, methods[i]) != (role > methods[i]->role))
				fail_msg("%s as %s", methods[i]->name, name);
		}
		be_again(f, before);
	}
	assert_true(n_asked > 6 * 300);
}

/* A row that names no role is for pool-admins: those that are, on purpose. */
static void a_row_without_a_role_is_for_admins(void **state)
{
	static const char *const admins[] = {"user.create", "user.create_pam", "user.destroy",
		"user.set_password", "user.set_role"};
	struct api_fixture *f = *state;
	const struct method *const *methods;
	size_t n = dispatcher_methods(api_dispatcher(f->api), &methods);

	for (size_t i = 0; i < n; i++) {
		bool is_meant = false;
		for (size_t j = 0; j < ARRAY_SIZE(admins); j++)
			is_meant |= strcmp(methods[i]->name, admins[j]) == 0;
		if (is_asked(methods[i]) && methods[i]->role == USER_POOL_ADMIN && !is_meant)
			fail_msg("%s names no role", methods[i]->name);
	}
}

/* --- Users ------------------------------------------------------------------------------------ */

static void a_role_changes_in_sessions_that_there_are(void **state)
{
	struct api_fixture *f = *state;

	make_user(f, "eve", "read-only");
	char *before = become(f, "eve");
	api_call_fails(f, "RBAC_PERMISSION_DENIED", "task.set_other_config",
		value_append(params_new(f, "OpaqueRef:nothing", NULL), value_new_struct()));
	char *eve = f->session;
	f->session = before;
	value_free(api_call_ok(f, "user.set_role", params_new(f, "eve", "vm-operator", NULL)));
	f->session = eve;
	api_call_fails(f, "HANDLE_INVALID", "task.set_other_config",
		value_append(params_new(f, "OpaqueRef:nothing", NULL), value_new_struct()));
	/* Also after a restart. */
	api_fixture_restart(f);
	api_call_fails(f, "RBAC_PERMISSION_DENIED", "host.enable",
		params_new(f, "OpaqueRef:nothing", NULL));
	be_again(f, before);
}

static void a_user_that_is_gone_has_no_sessions(void **state)
{
	struct api_fixture *f = *state;

	make_user(f, "eve", "pool-admin");
	char *before = become(f, "eve");
	char *eve = f->session;
	f->session = before;
	value_free(api_call_ok(f, "user.destroy", params_new(f, "eve", NULL)));
	f->session = eve;
	api_call_fails(f, "SESSION_INVALID", "host.get_all", params_new(f, NULL));
	be_again(f, before);
	api_call_fails(f, "SESSION_AUTHENTICATION_FAILED", "session.login_with_password",
		value_append_string(value_append_string(value_new_array(), "eve"), PASSWORD));
	api_call_fails(f, "HANDLE_INVALID", "user.destroy", params_new(f, "eve", NULL));
}

static void the_last_admin_stays(void **state)
{
	struct api_fixture *f = *state;

	make_user(f, "eve", "pool-operator");
	api_call_fails(f, "OPERATION_NOT_ALLOWED", "user.destroy", params_new(f, API_USER, NULL));
	api_call_fails(f, "OPERATION_NOT_ALLOWED", "user.set_role",
		params_new(f, API_USER, "read-only", NULL));
	value_free(api_call_ok(f, "user.set_role", params_new(f, "eve", "pool-admin", NULL)));
	value_free(api_call_ok(f, "user.set_role", params_new(f, API_USER, "read-only", NULL)));
}

static void bad_users_are_refused(void **state)
{
	struct api_fixture *f = *state;

	make_user(f, "eve", "read-only");
	api_call_fails(f, "INTERNAL_ERROR", "user.create",
		params_new(f, "eve", PASSWORD, "read-only", NULL));
	api_call_fails(
		f, "INTERNAL_ERROR", "user.create", params_new(f, "", PASSWORD, "read-only", NULL));
	api_call_fails(f, "INTERNAL_ERROR", "user.create",
		params_new(f, "a\nb", PASSWORD, "read-only", NULL));
	api_call_fails(
		f, "INTERNAL_ERROR", "user.create", params_new(f, "adam", "", "read-only", NULL));
	api_call_fails(
		f, "INVALID_VALUE", "user.create", params_new(f, "adam", PASSWORD, "root", NULL));
	api_call_fails(f, "INVALID_VALUE", "user.set_role", params_new(f, "eve", "Admin", NULL));
	struct value *users CLEANUP_VALUE = api_call_ok(f, "user.list", params_new(f, NULL));
	assert_int_equal(users->record.n_members, 2);
	assert_string_equal(value_find_string(users, "eve", ""), "read-only");
	assert_string_equal(value_find_string(users, API_USER, ""), "pool-admin");
}

static void who_is_logged_in_changes_his_password(void **state)
{
	struct api_fixture *f = *state;

	make_user(f, "eve", "read-only");
	char *before = become(f, "eve");
	api_call_fails(f, "SESSION_AUTHENTICATION_FAILED", "session.change_password",
		params_new(f, "wrong", "new", NULL));
	value_free(api_call_ok(f, "session.change_password", params_new(f, PASSWORD, "new", NULL)));
	be_again(f, before);
	char *session CLEANUP_FREE = login(f, "eve", "new");
	assert_non_null(session);
}

/* --- Tasks ------------------------------------------------------------------------------------ */

static void a_task_is_its_makers(void **state)
{
	struct api_fixture *f = *state;

	make_user(f, "eve", "vm-admin");
	make_user(f, "adam", "vm-admin");
	char *before = become(f, "eve");
	char *task CLEANUP_FREE = api_call_text(f, "task.create", params_new(f, "mine", "", NULL));
	char *user CLEANUP_FREE = api_call_text(f, "task.get_user", params_new(f, task, NULL));
	assert_string_equal(user, "eve");
	be_again(f, before);

	before = become(f, "adam");
	api_call_fails(f, "RBAC_PERMISSION_DENIED", "task.destroy", params_new(f, task, NULL));
	api_call_fails(f, "RBAC_PERMISSION_DENIED", "task.cancel", params_new(f, task, NULL));
	api_call_fails(f, "RBAC_PERMISSION_DENIED", "task.set_status",
		params_new(f, task, "failure", NULL));
	api_call_fails(
		f, "RBAC_PERMISSION_DENIED", "task.set_result", params_new(f, task, "x", NULL));
	be_again(f, before);

	before = become(f, "eve");
	value_free(api_call_ok(f, "task.set_result", params_new(f, task, "x", NULL)));
	be_again(f, before);
	/* Operators may. */
	value_free(api_call_ok(f, "task.destroy", params_new(f, task, NULL)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_method_is_for_its_role_and_those_above,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(a_row_without_a_role_is_for_admins,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(a_role_changes_in_sessions_that_there_are,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(a_user_that_is_gone_has_no_sessions,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			the_last_admin_stays, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			bad_users_are_refused, api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(who_is_logged_in_changes_his_password,
			api_fixture_setup, api_fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_task_is_its_makers, api_fixture_setup, api_fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
