/* SPDX-License-Identifier: Apache-2.0 */
/* ferryd: the command line. */
#include "agent/config.h"
#include "agent/daemon.h"
#include "agent/password.h"
#include "agent/privileges.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"

#include <getopt.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

/* Each arena keeps what the largest answer of its threads took: with one per thread, as is the
 * default, a pool of 1000 VMs cost 280 MiB after each worker had listed it once, and 90 MiB with
 * two. */
#define MALLOC_ARENAS 2

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char help[] =
	"usage: ferryd [--config FILE]\n"
	"       ferryd [--config FILE] --check-config\n"
	"       ferryd [--config FILE] --set-password USER\n"
	"       ferryd --version | --help\n"
	"\n"
	"The daemon that moves virtual machines, with their disks, between pools of hosts.\n"
	"\n"
	"  --config FILE         configuration; default " CONFIG_DEFAULT_FILE "\n"
	"  --check-config        check it, print what would be used, start nothing\n"
	"  --set-password USER   store the password of an API user, read from standard input;\n"
	"                        the daemon may be running or not\n"
	"  --version, --help\n"
	"\n"
	"Manual pages: ferryd(8), ferryd.conf(5)\n";

enum action { ACTION_RUN, ACTION_CHECK_CONFIG, ACTION_SET_PASSWORD, ACTION_VERSION, ACTION_HELP };

struct options {
	enum action action;
	const char *config;
	const char *user;
};

/* 0, or EXIT_USAGE after the mistake was said. */
static int parse_options(int argc, char **argv, struct options *ret_options)
{
	static const struct option known[] = {
		{"config", required_argument, NULL, 'c'},
		{"check-config", no_argument, NULL, 'k'},
		{"set-password", required_argument, NULL, 'p'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct options options = {.config = CONFIG_DEFAULT_FILE};
	bool chosen = false;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == '?')
			goto usage;
		if (c == 'c') {
			options.config = optarg;
			continue;
		}
		if (chosen) {
			fputs("ferryd: only one of --check-config, --set-password, --version and "
			      "--help can be given\n",
				stderr);
			goto usage;
		}
		chosen = true;
		options.action = c == 'k'   ? ACTION_CHECK_CONFIG
				 : c == 'p' ? ACTION_SET_PASSWORD
				 : c == 'V' ? ACTION_VERSION
					    : ACTION_HELP;
		if (c == 'p')
			options.user = optarg;
	}
	if (optind < argc) {
		fprintf(stderr, "ferryd: unexpected argument \"%s\"\n", argv[optind]);
		goto usage;
	}
	*ret_options = options;
	return 0;
usage:
	fputs("Try: ferryd --help\n", stderr);
	return EXIT_USAGE;
}

static enum exit_code fail(const struct fault *fault)
{
	/* Faults of our own texts have one parameter that says it all. */
	if (fault_is(fault, "INTERNAL_ERROR") && fault->n_params == 1) {
		fprintf(stderr, "ferryd: %s\n", fault->params[0]);
	} else {
		char *text CLEANUP_FREE = fault_describe(fault);
		fprintf(stderr, "ferryd: %s\n", text);
	}
	return EXIT_FAILED;
}

static enum exit_code print_config(const struct config *config)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	config_print(config, &text);
	fputs(text.data, stdout);
	if (fflush(stdout) == 0)
		return EXIT_DONE;
	perror("ferryd: standard output");
	return EXIT_FAILED;
}

static enum exit_code act(const struct options *options)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (config_load(options->config, &config, &fault) < 0)
		return fail(&fault);
	if (options->action == ACTION_CHECK_CONFIG)
		return print_config(&config);
	log_set_level(config.log_level);
	umask(077);
	mallopt(M_ARENA_MAX, MALLOC_ARENAS);
	int r = privileges_drop(&config, &fault);
	if (r == 0)
		r = options->action == ACTION_SET_PASSWORD
			    ? password_set(&config, options->user, &fault)
			    : daemon_run(&config, options->config, &fault);
	return r < 0 ? fail(&fault) : EXIT_DONE;
}

int main(int argc, char **argv)
{
	struct options options;
	int r = parse_options(argc, argv, &options);

	if (r)
		return r;
	if (options.action == ACTION_HELP) {
		fputs(help, stdout);
		return EXIT_DONE;
	}
	if (options.action == ACTION_VERSION) {
		puts("ferryd " FERRY_VERSION);
		return EXIT_DONE;
	}
	return act(&options);
}
