/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/session.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/prompt.h"
#include "xmlrpc/client.h"
#include "xmlrpc/probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LOGOUT_USEC (5 * USEC_PER_SEC)
#define PROBE_USEC  (10 * USEC_PER_SEC)

struct session {
	struct client *client;
	struct cancel *cancel;
	char *ref; /* NULL: not logged in */
	char *name;
	char *url;
	char *user;
	char *password;
	char *fingerprint; /* pinned; NULL: the certificate is verified in another way */
	char *ca_file;     /* for that; NULL: the system's */
	bool is_local;
	uint64_t timeout_usec;
	uint64_t patience_usec;
	struct value *records; /* class -> records, as asked for before */
};

const char *session_url(const struct session *session)
{
	return session->url;
}

const char *session_ref(const struct session *session)
{
	return session->ref;
}

void session_server(const struct session *session, struct client_params *ret_server)
{
	*ret_server = (struct client_params){
		.url = session->url,
		.fingerprint = session->fingerprint,
		.ca_file = session->ca_file,
	};
}

const char *session_user(const struct session *session)
{
	return session->user;
}

const char *session_password(const struct session *session)
{
	return session->password;
}

int session_fingerprint(const struct session *session, char **ret_fingerprint, struct fault *fault)
{
	struct probe probe CLEANUP_PROBE = PROBE_INIT;

	if (session->fingerprint) {
		*ret_fingerprint = xstrdup(session->fingerprint);
		return 0;
	}
	int r = probe_server(
		session->url, clock_deadline(PROBE_USEC), session->cancel, &probe, fault);
	if (r == 0)
		*ret_fingerprint = TAKE_PTR(probe.key);
	return r;
}

void session_set_patience(struct session *session, uint64_t usec)
{
	session->patience_usec = usec;
}

void session_set_cancel(struct session *session, struct cancel *cancel)
{
	session->cancel = cancel;
}

/* --- Which server -------------------------------------------------------------------------------
 */

static int no_server(const struct config *config, struct fault *fault)
{
	if (config->n_servers > 1)
		return cli_usage(fault, "%s names %zu servers: choose one with --server NAME",
			config->path, config->n_servers);
	return cli_usage(fault,
		"no server is named: give --server NAME or https://HOST[:PORT], or "
		"write %s (see ferry(1))",
		config->path);
}

/* *ret_server: what the configuration knows of it, or NULL for a URL it does not know. */
static int choose_server(const struct session_params *params, const char **ret_name,
	const struct server **ret_server, struct fault *fault)
{
	const struct config *config = params->config;
	const char *environment = getenv("FERRY_SERVER");
	const char *name = params->server;

	if (!name && environment && *environment)
		name = environment;
	if (!name)
		name = config->default_server;
	if (!name && config->n_servers == 1)
		name = config->servers[0].name;
	if (!name)
		return no_server(config, fault);
	*ret_name = name;
	*ret_server = config_server(config, name);
	for (size_t i = 0; i < config->n_servers && !*ret_server; i++)
		if (config->servers[i].url && strcmp(config->servers[i].url, name) == 0)
			*ret_server = &config->servers[i];
	if (*ret_server && !(*ret_server)->url)
		return cli_fail(fault, -EINVAL, "%s: server %s has no url", config->path,
			(*ret_server)->name);
	if (*ret_server)
		return 0;
	if (!strchr(name, ':'))
		return cli_usage(fault, "%s has no section [server %s]", config->path, name);
	return config_check_url(name, fault);
}

static int ask_missing(struct session *session, const struct session_params *params,
	const char *what, enum prompt_echo echo, char **answer, struct fault *fault)
{
	if (*answer)
		return 0;
	if (!params->may_ask)
		return cli_fail(fault, -ENXIO, "%s has no %s for server %s", params->config->path,
			what, session->name);
	char *question CLEANUP_FREE = xasprintf("%s for %s: ", what, session->name);
	int r = prompt_ask(question, echo, interrupt_first(), answer, fault);
	if (r == -ENXIO)
		return cli_fail(fault, r,
			"no %s for server %s: write \"%s = ...\" below [server %s] "
			"in %s, or run this on a terminal",
			what, session->name, what, session->name, params->config->path);
	return r;
}

/* --- Calls --------------------------------------------------------------------------------------
 */

/* What the user can do about a certificate that was not accepted. */
static int explain_certificate(const struct session *session, int error, struct fault *fault)
{
	struct probe probe CLEANUP_PROBE = PROBE_INIT;

	if (probe_server(session->url, clock_deadline(PROBE_USEC), session->cancel, &probe, NULL) <
		0)
		return error;
	if (session->fingerprint)
		return cli_fail(fault, error,
			"the key of %s is not the one that is pinned: the server was set up anew, "
			"or this is another machine. It shows %s; if that is right, run "
			"`ferry trust %s`",
			session->url, probe.key, session->name);
	return cli_fail(fault, error,
		"the key of %s is not known. Its SHA-256 is %s; compare it "
		"with what the server says of itself, then run `ferry trust "
		"%s`",
		session->url, probe.key, session->name);
}

static int call(struct session *session, const char *method, const struct value *params,
	struct value **ret_result, struct fault *fault)
{
	uint64_t deadline = clock_deadline(session->timeout_usec + session->patience_usec);
	int r = client_call(
		session->client, method, params, deadline, session->cancel, ret_result, fault);

	if (r == -ECANCELED)
		return cli_fail(fault, r, "interrupted");
	return r == -EKEYREJECTED ? explain_certificate(session, r, fault) : r;
}

static int login(struct session *session, struct fault *fault)
{
	struct value *params CLEANUP_VALUE = value_new_array();
	struct value *result CLEANUP_VALUE = NULL;

	value_append_string(params, session->user);
	value_append_string(params, session->password);
	if (!session->is_local) {
		value_append_string(params, "1.0");
		value_append_string(params, "ferry");
	}
	int r = call(session,
		session->is_local ? "session.slave_local_login_with_password"
				  : "session.login_with_password",
		params, &result, fault);
	if (r < 0)
		return r;
	const char *ref = value_string(result, NULL);
	if (!ref)
		return cli_fail(
			fault, -EBADMSG, "%s answered the login with no session", session->url);
	free(session->ref);
	session->ref = xstrdup(ref);
	return 0;
}

/* params: the session's ref first. It logs in anew, once. */
static int call_again(struct session *session, const char *method, struct value *params,
	struct value **ret_result, struct fault *fault)
{
	int r = call(session, method, params, ret_result, fault);

	if (r != -EREMOTEIO || !fault_is(fault, "SESSION_INVALID"))
		return r;
	/* The call was refused before it began: it can be made again. */
	r = login(session, fault);
	if (r < 0)
		return r;
	value_free(params->array.items[0]);
	params->array.items[0] = value_new_string(session->ref);
	return call(session, method, params, ret_result, fault);
}

int session_call(struct session *session, struct value **ret_result, struct fault *fault,
	const char *method, ...)
{
	struct value *params CLEANUP_VALUE = value_new_array();
	struct value *result CLEANUP_VALUE = NULL;
	struct fault local CLEANUP_FAULT = FAULT_INIT;
	struct value *value;
	va_list args;

	if (!fault)
		fault = &local;
	value_append_string(params, session->ref);
	va_start(args, method);
	while ((value = va_arg(args, struct value *)))
		value_append(params, value);
	va_end(args);
	int r = call_again(session, method, params, &result, fault);
	if (r == 0 && ret_result)
		*ret_result = TAKE_PTR(result);
	return r;
}

int session_call_values(struct session *session, const char *method, const struct value *values,
	struct value **ret_result, struct fault *fault)
{
	struct value *params CLEANUP_VALUE = value_new_array();
	bool is_open = strncmp(method, "system.", strlen("system.")) == 0;

	if (!is_open)
		value_append_string(params, session->ref);
	for (size_t i = 0; i < values->array.n_items; i++)
		value_append(params, value_copy(values->array.items[i]));
	return is_open ? call(session, method, params, ret_result, fault)
		       : call_again(session, method, params, ret_result, fault);
}

int session_records(struct session *session, const char *class, const struct value **ret_records,
	struct fault *fault)
{
	const struct value *known = value_find(session->records, class);

	if (!known) {
		struct value *records CLEANUP_VALUE = NULL;
		char *method CLEANUP_FREE = xasprintf("%s.get_all_records", class);
		int r = session_call(session, &records, fault, method, NULL);
		if (r < 0)
			return r;
		if (records->type != VALUE_STRUCT)
			return cli_fail(fault, -EBADMSG, "%s answered %s with no records",
				session->url, method);
		known = records;
		value_set(session->records, class, TAKE_PTR(records));
	}
	*ret_records = known;
	return 0;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

int session_open(
	const struct session_params *params, struct session **ret_session, struct fault *fault)
{
	struct session *session CLEANUP_SESSION = xcalloc(1, sizeof(*session));
	const struct server *server = NULL;
	const char *name = NULL;
	int r = choose_server(params, &name, &server, fault);

	if (r < 0)
		return r;
	session->cancel = interrupt_first();
	session->records = value_new_struct();
	session->is_local = params->is_local;
	session->timeout_usec = params->timeout_usec;
	session->name = xstrdup(name);
	session->url = xstrdup(server ? server->url : name);
	session->user = xstrdup(server ? server->user : NULL);
	session->password = xstrdup(server ? server->password : NULL);
	session->fingerprint = xstrdup(server ? server->fingerprint : NULL);
	session->ca_file = xstrdup(server ? server->ca_file : NULL);
	struct client_params client;
	session_server(session, &client);
	session->client = client_new(&client);
	r = ask_missing(session, params, "user", PROMPT_SHOWN, &session->user, fault);
	if (r < 0)
		return r;
	r = ask_missing(session, params, "password", PROMPT_HIDDEN, &session->password, fault);
	if (r < 0)
		return r;
	r = login(session, fault);
	if (r == 0)
		*ret_session = TAKE_PTR(session);
	return r;
}

struct session *session_close(struct session *session)
{
	if (!session)
		return NULL;
	if (session->ref) {
		struct value *params CLEANUP_VALUE = value_new_array();
		struct value *result CLEANUP_VALUE = NULL;
		struct fault ignored CLEANUP_FAULT = FAULT_INIT;
		value_append_string(params, session->ref);
		(void)client_call(session->client,
			session->is_local ? "session.local_logout" : "session.logout", params,
			clock_deadline(LOGOUT_USEC), NULL, &result, &ignored);
	}
	client_free(session->client);
	if (session->password)
		explicit_bzero(session->password, strlen(session->password));
	free(session->password);
	free(session->user);
	free(session->fingerprint);
	free(session->ca_file);
	free(session->url);
	free(session->name);
	free(session->ref);
	value_free(session->records);
	free(session);
	return NULL;
}
