/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/config.h"

#include "base/alloc.h"
#include "base/io.h"
#include "cli/errors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SYSTEM_FILE "/etc/ferry/ferry.conf"
#define MAX_BYTES   ((size_t)256 * 1024)

struct config *config_free(struct config *config)
{
	if (!config)
		return NULL;
	for (size_t i = 0; i < config->n_servers; i++) {
		struct server *server = &config->servers[i];
		free(server->name);
		free(server->url);
		free(server->user);
		if (server->password)
			explicit_bzero(server->password, strlen(server->password));
		free(server->password);
		free(server->fingerprint);
		free(server->ca_file);
	}
	free(config->servers);
	free(config->default_server);
	free(config->path);
	free(config);
	return NULL;
}

const struct server *config_server(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_servers; i++)
		if (strcmp(config->servers[i].name, name) == 0)
			return &config->servers[i];
	return NULL;
}

int config_check_url(const char *url, struct fault *fault)
{
	static const char scheme[] = "https://";
	const char *host = url + strlen(scheme);

	if (strncmp(url, scheme, strlen(scheme)) != 0)
		return cli_usage(fault,
			"\"%s\" is no address of a server: it must be "
			"https://HOST[:PORT]",
			url);
	if (!*host || strpbrk(host, " \t\"@"))
		return cli_usage(fault,
			"\"%s\" must be https://HOST[:PORT], without user or "
			"password",
			url);
	return 0;
}

/* --- Reading ------------------------------------------------------------------------------------
 */

struct reading {
	struct config *config;
	struct server *server; /* the section; NULL: [ferry] */
	bool in_section;
	unsigned line;
	struct fault *fault;
};

static int refuse(const struct reading *reading, const char *text, const char *what)
{
	return cli_fail(reading->fault, -EINVAL, "%s line %u: %s%s", reading->config->path,
		reading->line, text, what);
}

static int read_section(struct reading *reading, char *text)
{
	static const char prefix[] = "server ";
	struct config *config = reading->config;
	char *end = strchr(text, ']');

	if (!end || end[1])
		return refuse(reading, "a section is written [server NAME] or [ferry]", "");
	*end = '\0';
	reading->in_section = true;
	reading->server = NULL;
	if (strcmp(text, "ferry") == 0)
		return 0;
	if (strncmp(text, prefix, strlen(prefix)) != 0)
		return refuse(reading, "a section is [server NAME] or [ferry], not ", text);
	const char *name = text + strlen(prefix);
	if (!*name || strpbrk(name, " \t/:"))
		return refuse(reading, "a server's name has no space, '/' or ':': ", name);
	if (config_server(config, name))
		return refuse(reading, "there is a section before for server ", name);
	config->servers =
		xrealloc(config->servers, config->n_servers + 1, sizeof(*config->servers));
	reading->server = &config->servers[config->n_servers++];
	*reading->server = (struct server){.name = xstrdup(name)};
	return 0;
}

static char **find_key(const struct reading *reading, const char *key)
{
	struct server *server = reading->server;

	if (!server)
		return strcmp(key, "server") == 0 ? &reading->config->default_server : NULL;
	const struct {
		const char *key;
		char **value;
	} keys[] = {
		{"url", &server->url},
		{"user", &server->user},
		{"password", &server->password},
		{"fingerprint", &server->fingerprint},
		{"ca_file", &server->ca_file},
	};
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].key, key) == 0)
			return keys[i].value;
	return NULL;
}

/* Colons and capitals, as other programs print fingerprints, are taken out. */
static int tidy_fingerprint(char *fingerprint)
{
	char *to = fingerprint;

	for (const char *from = fingerprint; *from; from++) {
		if (*from == ':')
			continue;
		*to++ = *from >= 'A' && *from <= 'F' ? (char)(*from + 32) : *from;
	}
	*to = '\0';
	return strlen(fingerprint) == 64 && strspn(fingerprint, "0123456789abcdef") == 64 ? 0
											  : -EINVAL;
}

static int read_value(struct reading *reading, char *key, char *value)
{
	char **slot = find_key(reading, key);

	if (!slot && reading->server)
		return refuse(reading,
			"a server has url, user, password, fingerprint, ca_file; not ", key);
	if (!slot)
		return refuse(reading, "section [ferry] has server; not ", key);
	if (*slot)
		return refuse(reading, "given twice: ", key);
	if (!*value)
		return refuse(reading, "no value for ", key);
	*slot = xstrdup(value);
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	if (strcmp(key, "url") == 0 && config_check_url(value, &why) < 0)
		return refuse(reading, "", why.params[0]);
	if (strcmp(key, "fingerprint") == 0 && tidy_fingerprint(*slot) < 0)
		return refuse(reading,
			"a fingerprint is the SHA-256 of the server's key, 64 "
			"hexadecimal digits",
			"");
	return 0;
}

static char *trim(char *text)
{
	text += strspn(text, " \t");
	size_t n = strlen(text);
	while (n && strchr(" \t\r", text[n - 1]))
		n--;
	text[n] = '\0';
	return text;
}

static int read_line(struct reading *reading, char *line)
{
	char *text = trim(line);

	if (!*text || *text == '#' || *text == ';')
		return 0;
	if (*text == '[')
		return read_section(reading, text + 1);
	char *equals = strchr(text, '=');
	if (!equals)
		return refuse(reading, "neither [section] nor key = value", "");
	if (!reading->in_section)
		return refuse(reading, "a key before the first [section]", "");
	*equals = '\0';
	return read_value(reading, trim(text), trim(equals + 1));
}

static int read_text(struct config *config, char *text, struct fault *fault)
{
	struct reading reading = {.config = config, .fault = fault};
	char *line;

	while ((line = strsep(&text, "\n"))) {
		reading.line++;
		int r = read_line(&reading, line);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- Finding ------------------------------------------------------------------------------------
 */

static char *user_file(void)
{
	const char *dir = getenv("XDG_CONFIG_HOME");
	const char *home = getenv("HOME");

	if (dir && *dir)
		return xasprintf("%s/ferry/ferry.conf", dir);
	return home && *home ? xasprintf("%s/.config/ferry/ferry.conf", home) : NULL;
}

/* *ret_named: it has to be there. */
static char *choose_file(const char *path, bool *ret_named)
{
	const char *environment = getenv("FERRY_CONFIG");

	if (!path && environment && *environment)
		path = environment;
	*ret_named = path != NULL;
	if (path)
		return xstrdup(path);
	char *user CLEANUP_FREE = user_file();
	if (user && (access(user, F_OK) == 0 || access(SYSTEM_FILE, F_OK) != 0))
		return TAKE_PTR(user);
	return xstrdup(SYSTEM_FILE);
}

static int check_private(const char *path, const struct stat *st, struct fault *fault)
{
	if (!S_ISREG(st->st_mode))
		return cli_fail(fault, -EINVAL, "%s is no file", path);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return cli_fail(fault, -EPERM,
			"%s belongs to another user (uid %u): it may hold "
			"passwords, so it must be yours or root's",
			path, (unsigned)st->st_uid);
	if (st->st_mode & 077)
		return cli_fail(fault, -EPERM,
			"%s may be read or changed by others (mode %04o): it "
			"may hold passwords, so run `chmod 600 %s`",
			path, (unsigned)st->st_mode & 07777, path);
	return 0;
}

int config_load(const char *path, struct config **ret_config, struct fault *fault)
{
	struct config *config CLEANUP_CONFIG = xcalloc(1, sizeof(*config));
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct stat st;
	bool named;

	config->path = choose_file(path, &named);
	if (stat(config->path, &st) < 0) {
		if (errno == ENOENT && !named) {
			*ret_config = TAKE_PTR(config);
			return 0;
		}
		return cli_fail(fault, -errno, "%s: %s", config->path, strerror(errno));
	}
	int r = check_private(config->path, &st, fault);
	if (r < 0)
		return r;
	r = io_read_file(config->path, MAX_BYTES, &text);
	if (r < 0)
		return cli_fail(fault, r, "%s: %s", config->path, strerror(-r));
	if (text.length && strlen(text.data) != text.length)
		return cli_fail(fault, -EINVAL, "%s holds a NUL byte: it is no text", config->path);
	r = text.length ? read_text(config, text.data, fault) : 0;
	if (text.length)
		explicit_bzero(text.data, text.length);
	if (r == 0)
		*ret_config = TAKE_PTR(config);
	return r;
}
