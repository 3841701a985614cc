/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/command.h"

#include "base/cleanup.h"

#include <string.h>

const struct noun nouns[] = {
	{"vm", "virtual machines", vm_commands, N_VM_COMMANDS},
	{"vdi", "disks", vdi_commands, N_VDI_COMMANDS},
	{"sr", "storage repositories", sr_commands, N_SR_COMMANDS},
	{"vbd", "disks attached to virtual machines", vbd_commands, N_VBD_COMMANDS},
	{"vif", "network cards of virtual machines", vif_commands, N_VIF_COMMANDS},
	{"network", "networks", network_commands, N_NETWORK_COMMANDS},
	{"host", "hosts", host_commands, N_HOST_COMMANDS},
	{"pool", "pools", pool_commands, N_POOL_COMMANDS},
	{"task", "running and ended calls", task_commands, N_TASK_COMMANDS},
	{"user", "who may log in, and what they may do", user_commands, N_USER_COMMANDS},
	{"migration", "moves of virtual machines", migration_commands, N_MIGRATION_COMMANDS},
	{"doctor", "what nobody accounts for", doctor_commands, N_DOCTOR_COMMANDS},
	{"api", "any call of the API", api_commands, N_API_COMMANDS},
	{"trust", "pins a server's key", trust_commands, N_TRUST_COMMANDS},
};

const size_t n_nouns = ARRAY_SIZE(nouns);

const struct option global_options[] = {
	{"server", "SERVER", "server", "name in the configuration, or https://HOST[:PORT]", false,
		false},
	{"config", "FILE", "file", "configuration, instead of the user's or the system's", false,
		false},
	{"timeout", "TIME", NULL, "how long one call may take (60s)", false, false},
	{"json", NULL, NULL, "results as JSON", false, false},
	{"no-progress", NULL, NULL, "no progress line", false, false},
	{"verbose", NULL, NULL, "log what goes over the wire to standard error", false, false},
	{"help", NULL, NULL, "show this and exit", false, false},
	{"version", NULL, NULL, "show the version and exit", false, false},
};

const size_t n_global_options = ARRAY_SIZE(global_options);

const struct noun *noun_find(const char *name)
{
	for (size_t i = 0; i < n_nouns; i++)
		if (strcmp(nouns[i].name, name) == 0)
			return &nouns[i];
	return NULL;
}

const struct command *command_find(const struct noun *noun, const char *verb)
{
	for (size_t i = 0; i < noun->n_commands; i++) {
		const struct command *command = &noun->commands[i];
		if (!command->verb || !verb ? command->verb == verb
					    : strcmp(command->verb, verb) == 0)
			return command;
	}
	return NULL;
}

static const struct option *find_in(const struct option *options, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	return NULL;
}

const struct option *option_find(const struct command *command, const char *name)
{
	const struct option *own =
		command ? find_in(command->options, command->n_options, name) : NULL;

	return own ? own : find_in(global_options, n_global_options, name);
}

size_t command_n_operands(const struct command *command)
{
	size_t n = 0;

	while (n < COMMAND_MAX_OPERANDS && command->operands[n].name)
		n++;
	return n;
}

size_t command_n_words(const struct command *command)
{
	size_t n = command_n_operands(command);

	return command->repeats ? COMMAND_MAX_WORDS : n;
}
