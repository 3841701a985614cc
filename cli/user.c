/* SPDX-License-Identifier: Apache-2.0 */
/* Users of the API. A password is asked for twice on a terminal, and else the first line of
 * standard input: never on the command line, which others can read. */
#include "base/alloc.h"
#include "base/value.h"
#include "cli/context.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROLES "pool-admin|pool-operator|vm-power-admin|vm-admin|vm-operator|read-only"

static void wipe(char **text)
{
	if (*text)
		explicit_bzero(*text, strlen(*text));
	free(*text);
}

#define CLEANUP_SECRET CLEANUP(wipe)

/* --- Passwords ---------------------------------------------------------------------------------
 */

static int ask_twice(char **ret_password, struct fault *fault)
{
	char *first CLEANUP_SECRET = NULL;
	char *second CLEANUP_SECRET = NULL;
	int r = prompt_ask("New password: ", PROMPT_HIDDEN, interrupt_first(), &first, fault);

	if (r == 0)
		r = prompt_ask(
			"The same again: ", PROMPT_HIDDEN, interrupt_first(), &second, fault);
	if (r < 0)
		return r;
	if (strcmp(first, second) != 0)
		return cli_fail(fault, -EINVAL, "the two passwords differ; nothing was changed");
	*ret_password = TAKE_PTR(first);
	return 0;
}

/* The next line of standard input. */
static int read_password(const char *what, char **ret_password, struct fault *fault)
{
	char *line CLEANUP_SECRET = NULL;
	size_t size = 0;
	ssize_t length = getline(&line, &size, stdin);

	if (length > 0 && line[length - 1] == '\n')
		line[--length] = '\0';
	if (length <= 0)
		return cli_usage(fault, "%s is missing: it is read from standard input", what);
	if (strlen(line) != (size_t)length)
		return cli_usage(fault, "%s has a NUL byte in it", what);
	*ret_password = TAKE_PTR(line);
	return 0;
}

static int take_new_password(char **ret_password, struct fault *fault)
{
	return isatty(STDIN_FILENO) ? ask_twice(ret_password, fault)
				    : read_password("the new password", ret_password, fault);
}

static int take_old_password(char **ret_password, struct fault *fault)
{
	return isatty(STDIN_FILENO) ? prompt_ask("Password until now: ", PROMPT_HIDDEN,
					      interrupt_first(), ret_password, fault)
				    : read_password("the password until now", ret_password, fault);
}

/* --- Commands ----------------------------------------------------------------------------------
 */

static void put_table(
	struct context *context, const struct value *users, const struct value *in_pam)
{
	struct table *table CLEANUP_TABLE = table_new();

	table_add_column(table, "NAME", TABLE_LEFT);
	table_add_column(table, "ROLE", TABLE_LEFT);
	table_add_column(table, "PASSWORD", TABLE_LEFT);
	for (size_t i = 0; i < users->record.n_members; i++) {
		char *name CLEANUP_FREE = output_clean(users->record.members[i].name);
		table_add(table, name);
		table_add(table, value_string(users->record.members[i].value, ""));
		table_add(table, value_contains_string(in_pam, users->record.members[i].name)
					 ? "in PAM"
					 : "here");
	}
	table_write(table, &context->out);
}

static int user_list(struct context *context, struct fault *fault)
{
	struct value *users CLEANUP_VALUE = NULL;
	struct value *in_pam CLEANUP_VALUE = NULL;
	int r = context_session(context, fault);

	if (r == 0)
		r = session_call(context->session, &users, fault, "user.list", NULL);
	if (r == 0 && !context->json)
		r = session_call(context->session, &in_pam, fault, "user.list_pam", NULL);
	if (r < 0)
		return r;
	if (users->type != VALUE_STRUCT)
		return cli_fail(fault, -EBADMSG, "%s answered user.list with no map",
			session_url(context->session));
	if (context->json)
		context_put_json(context, users);
	else
		put_table(context, users, in_pam);
	return 0;
}

static int user_create(struct context *context, struct fault *fault)
{
	const char *name = args_operand(context->args, 0);
	const char *role = args_value(context->args, "role", "");
	char *password CLEANUP_SECRET = NULL;
	int r = context_session(context, fault);

	if (r == 0 && args_has(context->args, "pam"))
		return session_call(context->session, NULL, fault, "user.create_pam",
			value_new_string(name), value_new_string(role), NULL);
	if (r == 0)
		r = take_new_password(&password, fault);
	return r < 0 ? r
		     : session_call(context->session, NULL, fault, "user.create",
			       value_new_string(name), value_new_string(password),
			       value_new_string(role), NULL);
}

static int user_destroy(struct context *context, struct fault *fault)
{
	int r = context_session(context, fault);

	return r < 0 ? r
		     : session_call(context->session, NULL, fault, "user.destroy",
			       value_new_string(args_operand(context->args, 0)), NULL);
}

static int user_set_role(struct context *context, struct fault *fault)
{
	int r = context_session(context, fault);

	return r < 0 ? r
		     : session_call(context->session, NULL, fault, "user.set_role",
			       value_new_string(args_operand(context->args, 0)),
			       value_new_string(args_operand(context->args, 1)), NULL);
}

static int user_set_password(struct context *context, struct fault *fault)
{
	char *password CLEANUP_SECRET = NULL;
	int r = context_session(context, fault);

	if (r == 0)
		r = take_new_password(&password, fault);
	return r < 0 ? r
		     : session_call(context->session, NULL, fault, "user.set_password",
			       value_new_string(args_operand(context->args, 0)),
			       value_new_string(password), NULL);
}

static int user_change_password(struct context *context, struct fault *fault)
{
	char *before CLEANUP_SECRET = NULL;
	char *after CLEANUP_SECRET = NULL;
	int r = context_session(context, fault);

	if (r == 0)
		r = take_old_password(&before, fault);
	if (r == 0)
		r = take_new_password(&after, fault);
	return r < 0 ? r
		     : session_call(context->session, NULL, fault, "session.change_password",
			       value_new_string(before), value_new_string(after), NULL);
}

static const struct option create_options[] = {
	{"role", "ROLE", ROLES, "what the user may do", true, false},
	{"pam", NULL, NULL, "the password is in the coordinator's PAM; none is read", false, false},
};

const struct command user_commands[N_USER_COMMANDS] = {
	{"user", "list", user_list, .help = "lists the users and their roles"},
	{"user", "create", user_create, {{"NAME", NULL, false}}, COMMAND_OPTIONS(create_options),
		"makes a user; the password is read from standard input"},
	{"user", "destroy", user_destroy, {{"NAME", NULL, false}},
		.help = "removes a user and ends its sessions"},
	{"user", "set-role", user_set_role, {{"NAME", NULL, false}, {"ROLE", ROLES, false}},
		.help = "gives a user another role, at once"},
	{"user", "set-password", user_set_password, {{"NAME", NULL, false}},
		.help = "gives a user another password, read from standard input"},
	{"user", "change-password", user_change_password,
		.help = "changes one's own password; the old one and the new one are read"},
};
