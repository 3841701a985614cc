/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/password.h"

#include "agent/api/passwords.h"
#include "agent/pool/membership.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/parse.h"
#include "schema/pool_db.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static void wipe(char **text)
{
	if (*text)
		explicit_bzero(*text, strlen(*text));
	free(*text);
}

#define CLEANUP_SECRET CLEANUP(wipe)

/* One line of standard input, byte by byte: stdio would keep a copy in its buffer. */
static int read_line(char **ret_line, struct fault *fault)
{
	char line[PASSWORD_MAX_BYTES + 1];
	size_t length = 0;
	ssize_t n;
	char c = '\0';

	while ((n = read(STDIN_FILENO, &c, 1)) == 1 && c != '\n') {
		if (length == sizeof(line) - 1)
			break;
		line[length++] = c;
	}
	int error = n < 0 ? -errno : 0;
	bool too_long = n == 1 && c != '\n';
	char *text CLEANUP_SECRET = xstrndup(line, length);
	explicit_bzero(line, sizeof(line));
	if (error)
		return fault_errno(fault, error, "cannot read the password");
	if (too_long)
		return fault_text(
			fault, -E2BIG, "the password is longer than %zu bytes", sizeof(line) - 1);
	if (!length || memchr(text, '\0', length) || !utf8_is_valid(text, length))
		return fault_text(fault, -EINVAL,
			length ? "the password must be UTF-8 text without NUL bytes"
			       : "the password is empty; it is read from one line of standard "
				 "input");
	*ret_line = TAKE_PTR(text);
	return 0;
}

static int prompt_line(const char *prompt, char **ret_line, struct fault *fault)
{
	fputs(prompt, stderr);
	int r = read_line(ret_line, fault);
	fputc('\n', stderr);
	return r;
}

static int read_twice(char **ret_password, struct fault *fault)
{
	char *first CLEANUP_SECRET = NULL;
	char *second CLEANUP_SECRET = NULL;
	int r = prompt_line("New password: ", &first, fault);

	if (r == 0)
		r = prompt_line("The same again: ", &second, fault);
	if (r != 0)
		return r;
	if (strcmp(first, second) != 0)
		return fault_text(fault, -EINVAL, "the two passwords differ; nothing was changed");
	*ret_password = TAKE_PTR(first);
	return 0;
}

int password_read(char **ret_password, struct fault *fault)
{
	struct termios shown, hidden;

	if (!isatty(STDIN_FILENO))
		return read_line(ret_password, fault);
	if (tcgetattr(STDIN_FILENO, &shown) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot read the terminal's settings");
	}
	hidden = shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot hide what is typed");
	}
	int r = read_twice(ret_password, fault);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
	return r;
}

/* A member has no users of its own: they are the coordinator's. */
static int check_own_pool(const struct config *config, struct fault *fault)
{
	struct membership membership CLEANUP_MEMBERSHIP = {0};
	int r = membership_load(config->state_dir, &membership, fault);

	if (r <= 0 || membership.kind == MEMBERSHIP_JOINING)
		return MIN(r, 0);
	return fault_text(fault, -EPERM,
		"this host is a member of the pool of %s: set passwords there", membership.url);
}

int password_set(const struct config *config, const char *user, struct fault *fault)
{
	char *password CLEANUP_SECRET = NULL;
	char *hash CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", config->state_dir);
	struct pool_db *pool CLEANUP_POOL_DB = NULL;

	int r = user_name_check(user, fault);
	if (r == 0)
		r = check_own_pool(config, fault);
	if (r == 0)
		r = password_read(&password, fault);
	if (r == 0)
		r = password_hash(password, &hash, fault);
	if (r < 0)
		return r;
	r = io_ensure_dir(config->state_dir, 0700);
	if (r < 0)
		return fault_errno(fault, r, "cannot make %s", config->state_dir);
	r = pool_db_open(path, &pool, fault);
	return r < 0 ? r : pool_db_set_user(pool, user, hash, fault);
}
