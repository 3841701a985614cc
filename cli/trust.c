/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/context.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/prompt.h"
#include "xmlrpc/probe.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* The section's url, or --url for a new one. */
static int choose_url(
	const struct context *context, const char *name, const char **ret_url, struct fault *fault)
{
	const struct server *server = config_server(context->config, name);
	const char *url = args_value(context->args, "url", NULL);

	if (!*name || strpbrk(name, " \t/:]"))
		return cli_usage(fault,
			"\"%s\" is no name for a server: no spaces, '/' or ':'; its "
			"address goes to --url",
			name);
	if (server && server->url && url && strcmp(server->url, url) != 0)
		return cli_usage(fault, "%s gives server %s the url %s", context->config->path,
			name, server->url);
	*ret_url = server && server->url ? server->url : url;
	if (!*ret_url)
		return cli_usage(fault,
			"%s has no section [server %s]: give --url https://HOST[:PORT]",
			context->config->path, name);
	return config_check_url(*ret_url, fault);
}

/* As the configuration: with or without colons, any case. */
static bool is_same(const char *wanted, const char *shown)
{
	for (; *wanted; wanted++) {
		if (*wanted == ':')
			continue;
		if (strncasecmp(wanted, shown, 1) != 0)
			return false;
		shown++;
	}
	return !*shown;
}

static int confirm(const struct context *context, const char *url, const struct probe *shown,
	struct fault *fault)
{
	const char *wanted = args_value(context->args, "fingerprint", NULL);
	char *answer CLEANUP_FREE = NULL;

	if (wanted && !is_same(wanted, shown->key) && !is_same(wanted, shown->certificate))
		return cli_fail(fault, -EKEYREJECTED, "%s shows another key: its SHA-256 is %s",
			url, shown->key);
	if (wanted || args_has(context->args, "yes"))
		return 0;
	char *question CLEANUP_FREE = xasprintf("The key of %s has SHA-256\n%s\n"
						"Is that what the server says of itself? [y/N] ",
		url, shown->key);
	int r = prompt_ask(question, PROMPT_SHOWN, interrupt_first(), &answer, fault);
	if (r == -ENXIO)
		return cli_fail(fault, r,
			"the key of %s has SHA-256 %s; if that is right, give it "
			"as --fingerprint",
			url, shown->key);
	if (r < 0)
		return r;
	if (strcasecmp(answer, "y") != 0 && strcasecmp(answer, "yes") != 0)
		return cli_fail(fault, -EKEYREJECTED, "not pinned");
	return 0;
}

static int trust(struct context *context, struct fault *fault)
{
	const char *name = args_operand(context->args, 0);
	struct probe shown CLEANUP_PROBE = PROBE_INIT;
	const char *url = NULL;
	int r = choose_url(context, name, &url, fault);

	if (r == 0)
		r = probe_server(url, clock_deadline(context->timeout_usec), interrupt_first(),
			&shown, fault);
	if (r == 0)
		r = confirm(context, url, &shown, fault);
	if (r == 0)
		r = config_pin(context->config, name, url, shown.key, fault);
	if (r < 0)
		return r;
	context_note(context, "pinned for server %s in %s", name, context->config->path);
	return 0;
}

static const struct option options[] = {
	{"url", "URL", NULL, "its address, when the configuration has none", false, false},
	{"fingerprint", "SHA256", NULL, "pin only this key (or certificate), without asking", false,
		false},
	{"yes", NULL, NULL, "pin what the server shows, without asking", false, false},
};

const struct command trust_commands[N_TRUST_COMMANDS] = {
	{"trust", NULL, trust, {{"SERVER", "server", false}}, COMMAND_OPTIONS(options),
		"pins the key that a server shows, in the configuration"},
};
