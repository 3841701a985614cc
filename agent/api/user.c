/* SPDX-License-Identifier: Apache-2.0 */
/* Users of the API: names, passwords and roles. They are no objects: nobody sees a hash. */
#include "agent/api/context.h"
#include "agent/api/passwords.h"
#include "agent/api/sessions.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* A user as the transaction is to leave it. */
struct change {
	const char *name;
	const char *hash; /* NULL: as it is */
	const char *role; /* NULL: as it is */
	bool is_new;
	bool is_gone;
};

static const char *role_of(const struct value *users, const char *name)
{
	return value_find_string(value_find(users, name), "role", NULL);
}

/* Somebody must be able to manage users. */
static int check_admin_left(
	const struct value *users, const struct change *change, struct fault *fault)
{
	const char *admin = role_name(USER_POOL_ADMIN);

	if (!change->is_gone && (!change->role || strcmp(change->role, admin) == 0))
		return 0;
	for (size_t i = 0; i < users->record.n_members; i++) {
		const char *name = users->record.members[i].name;
		if (strcmp(name, change->name) != 0 && strcmp(role_of(users, name), admin) == 0)
			return 0;
	}
	return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
		"this is the pool's last user with the role pool-admin", NULL);
}

static int check_known(const struct value *users, const struct change *change, struct fault *fault)
{
	bool is_known = role_of(users, change->name) != NULL;

	if (is_known != change->is_new)
		return 0;
	if (is_known)
		return fault_text(fault, -EEXIST,
			"there is a user \"%s\" already; user.set_role and user.set_password "
			"change it",
			change->name);
	return fault_set(fault, -ENOENT, "HANDLE_INVALID", "user", change->name, NULL);
}

static int apply(struct pool_db *pool, void *arg, struct fault *fault)
{
	const struct change *change = arg;
	struct value *users CLEANUP_VALUE = NULL;
	int r = pool_db_list_users(pool, &users, fault);

	if (r == 0)
		r = check_known(users, change, fault);
	if (r == 0 && !change->is_new)
		r = check_admin_left(users, change, fault);
	if (r == 0 && change->is_gone)
		return pool_db_remove_user(pool, change->name, fault);
	if (r == 0 && change->hash)
		r = pool_db_set_user(pool, change->name, change->hash, fault);
	if (r == 0 && change->role)
		r = pool_db_set_user_role(pool, change->name, change->role, fault);
	return r;
}

static int change_user(struct call *call, const struct change *change, struct fault *fault)
{
	struct change copy = *change;
	int r = pool_db_transaction(api_of(call)->pool, apply, &copy, fault);

	/* The values of these calls are in no other line of the log. */
	if (r == 0)
		log_info("USER-CHANGED", "user=\"%s\" by=\"%s\" what=%s role=%s", change->name,
			call_user(call), call_method(call)->name, change->role ? change->role : "");
	return r;
}

static int user_list(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct value *users CLEANUP_VALUE = NULL;
	int r = pool_db_list_users(api_of(call)->pool, &users, fault);

	(void)args;
	if (r < 0)
		return r;
	*ret_result = value_new_struct();
	for (size_t i = 0; i < users->record.n_members; i++) {
		const char *name = users->record.members[i].name;
		value_set_string(*ret_result, name, role_of(users, name));
	}
	return 0;
}

static int user_list_pam(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct value *users CLEANUP_VALUE = NULL;
	int r = pool_db_list_users(api_of(call)->pool, &users, fault);

	(void)args;
	if (r < 0)
		return r;
	*ret_result = value_new_array();
	for (size_t i = 0; i < users->record.n_members; i++) {
		const struct value_member *user = &users->record.members[i];
		if (password_is_in_pam(value_find_string(user->value, "password_hash", "")))
			value_append_string(*ret_result, user->name);
	}
	return 0;
}

static int hash_checked(const char *password, char **ret_hash, struct fault *fault)
{
	int r = password_check(password, fault);

	return r < 0 ? r : password_hash(password, ret_hash, fault);
}

static int user_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct change change = {
		.name = arg_text(args, 0), .role = arg_text(args, 2), .is_new = true};
	char *hash CLEANUP_FREE = NULL;
	enum user_role role;
	int r = user_name_check(change.name, fault);

	(void)ret_result;
	if (r == 0)
		r = role_parse(change.role, &role, fault);
	if (r == 0)
		r = hash_checked(arg_text(args, 1), &hash, fault);
	change.hash = hash;
	return r < 0 ? r : change_user(call, &change, fault);
}

static int user_create_pam(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct change change = {.name = arg_text(args, 0),
		.role = arg_text(args, 1),
		.hash = PASSWORD_IN_PAM,
		.is_new = true};
	enum user_role role;
	int r = user_name_check(change.name, fault);

	(void)ret_result;
	if (r == 0)
		r = role_parse(change.role, &role, fault);
	return r < 0 ? r : change_user(call, &change, fault);
}

static int user_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct change change = {.name = arg_text(args, 0), .is_gone = true};
	int r = change_user(call, &change, fault);

	(void)ret_result;
	if (r == 0)
		sessions_end_user(api_of(call)->sessions, change.name);
	return r;
}

static int user_set_role(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const struct change change = {.name = arg_text(args, 0), .role = arg_text(args, 1)};
	enum user_role role;
	int r = role_parse(change.role, &role, fault);

	(void)ret_result;
	if (r == 0)
		r = change_user(call, &change, fault);
	if (r == 0)
		sessions_set_role(api_of(call)->sessions, change.name, role);
	return r;
}

static int set_password(
	struct call *call, const char *name, const char *password, struct fault *fault)
{
	char *hash CLEANUP_FREE = NULL;
	int r = hash_checked(password, &hash, fault);
	const struct change change = {.name = name, .hash = hash};

	return r < 0 ? r : change_user(call, &change, fault);
}

static int user_set_password(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	(void)ret_result;
	return set_password(call, arg_text(args, 0), arg_text(args, 1), fault);
}

/* XenAPI's own: whoever is logged in changes his own password, and must know the old one. */
static int session_change_password(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	char *hash CLEANUP_FREE = NULL;
	int r = pool_db_get_user(api_of(call)->pool, call_user(call), &hash, fault);

	(void)ret_result;
	if (r < 0)
		return r;
	if (password_is_in_pam(hash))
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"this user's password is in the PAM of the pool's coordinator: change it "
			"there",
			NULL);
	if (!hash || !password_is(arg_text(args, 0), hash))
		return fault_set(fault, -EACCES, "SESSION_AUTHENTICATION_FAILED", call_user(call),
			"The old password is wrong", NULL);
	return set_password(call, call_user(call), arg_text(args, 1), fault);
}

static const struct param create_params[] = {
	{"name", PARAM_STRING, NULL},
	{"password", PARAM_STRING, NULL},
	{"role", PARAM_STRING, NULL},
};
static const struct param create_pam_params[] = {
	{"name", PARAM_STRING, NULL},
	{"role", PARAM_STRING, NULL},
};
static const struct param name_params[] = {{"name", PARAM_STRING, NULL}};
static const struct param role_params[] = {
	{"name", PARAM_STRING, NULL},
	{"role", PARAM_STRING, NULL},
};
static const struct param password_params[] = {
	{"name", PARAM_STRING, NULL},
	{"password", PARAM_STRING, NULL},
};
static const struct param change_params[] = {
	{"old_pwd", PARAM_STRING, NULL},
	{"new_pwd", PARAM_STRING, NULL},
};

static const struct method rows[] = {
	{
		.name = "user.list",
		.role = USER_POOL_OPERATOR,
		.handle = user_list,
		.result = "(string -> string) map",
		.doc = "The names of all users, each with its role.",
	},
	{
		.name = "user.create",
		.role = USER_POOL_ADMIN,
		.handle = user_create,
		PARAMS(create_params),
		.result = "void",
		.doc = "Makes a user.",
	},
	{
		.name = "user.create_pam",
		.role = USER_POOL_ADMIN,
		.handle = user_create_pam,
		PARAMS(create_pam_params),
		.result = "void",
		.doc = "Makes a user whose password the coordinator's PAM checks, at each login, "
		       "by the service ferry.",
	},
	{
		.name = "user.list_pam",
		.role = USER_POOL_OPERATOR,
		.handle = user_list_pam,
		.result = "string set",
		.doc = "The names of the users whose passwords are in PAM.",
	},
	{
		.name = "user.destroy",
		.role = USER_POOL_ADMIN,
		.handle = user_destroy,
		PARAMS(name_params),
		.result = "void",
		.doc = "Removes a user and ends its sessions; not the last pool-admin.",
	},
	{
		.name = "user.set_role",
		.role = USER_POOL_ADMIN,
		.handle = user_set_role,
		PARAMS(role_params),
		.result = "void",
		.doc = "Gives a user another role, at once, also in its sessions.",
	},
	{
		.name = "user.set_password",
		.role = USER_POOL_ADMIN,
		.handle = user_set_password,
		PARAMS(password_params),
		.result = "void",
		.doc = "Gives a user another password; its sessions stay. One whose password was "
		       "in PAM "
		       "has this one from then on.",
	},
	{
		.name = "session.change_password",
		.role = USER_READ_ONLY,
		.handle = session_change_password,
		PARAMS(change_params),
		.result = "void",
		.doc = "Changes the password of the session's own user.",
	},
};

const struct method_table user_methods = {rows, ARRAY_SIZE(rows)};
