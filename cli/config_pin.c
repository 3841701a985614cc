/* SPDX-License-Identifier: Apache-2.0 */
/* Writing one key into the configuration without touching what the user wrote around it. */
#include "cli/config.h"

#include "base/alloc.h"
#include "base/io.h"
#include "cli/errors.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_BYTES ((size_t)256 * 1024)

static bool is_section(const char *line, size_t length, const char *name)
{
	char *want CLEANUP_FREE = xasprintf("[server %s]", name);
	size_t skip = strspn(line, " \t");

	return length >= skip + strlen(want) && memcmp(line + skip, want, strlen(want)) == 0;
}

static bool is_fingerprint(const char *line)
{
	static const char key[] = "fingerprint";
	const char *at = line + strspn(line, " \t");

	if (strncmp(at, key, strlen(key)) != 0)
		return false;
	at += strlen(key);
	return at[strspn(at, " \t")] == '=';
}

/* Copies old to out line by line; true when the section was there and got the lines. */
static bool copy_with_pin(const char *old, const char *name, const char *lines, struct buf *out)
{
	bool inside = false;
	bool written = false;

	for (const char *line = old; *line;) {
		size_t length = strcspn(line, "\n");
		bool heading = line[strspn(line, " \t")] == '[';
		if (heading)
			inside = is_section(line, length, name);
		if (!inside || !is_fingerprint(line)) {
			buf_append(out, line, length);
			buf_append_char(out, '\n');
		}
		if (heading && inside) {
			buf_append_string(out, lines);
			written = true;
		}
		line += length + (line[length] == '\n');
	}
	return written;
}

static int ensure_folder(const char *path, struct fault *fault)
{
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path)
		return 0;
	char *folder CLEANUP_FREE = xstrndup(path, (size_t)(slash - path));
	const char *parent_end = strrchr(folder, '/');
	if (parent_end && parent_end != folder) {
		char *parent CLEANUP_FREE = xstrndup(folder, (size_t)(parent_end - folder));
		(void)io_ensure_dir(parent, 0700); /* the next one tells if this failed */
	}
	int r = io_ensure_dir(folder, 0700);
	return r < 0 ? cli_fail(fault, r, "cannot make %s: %s", folder, strerror(-r)) : 0;
}

int config_pin(const struct config *config, const char *name, const char *url,
	const char *fingerprint, struct fault *fault)
{
	struct buf old CLEANUP_BUF = BUF_INIT;
	struct buf text CLEANUP_BUF = BUF_INIT;
	int r = io_read_file(config->path, MAX_BYTES, &old);

	if (r < 0 && r != -ENOENT)
		return cli_fail(fault, r, "%s: %s", config->path, strerror(-r));
	const struct server *server = config_server(config, name);
	char *lines CLEANUP_FREE =
		server && server->url ? xasprintf("fingerprint = %s\n", fingerprint)
				      : xasprintf("url = %s\nfingerprint = %s\n", url, fingerprint);
	if (!copy_with_pin(old.data ? old.data : "", name, lines, &text))
		buf_printf(&text, "%s[server %s]\n%s", text.length ? "\n" : "", name, lines);
	r = ensure_folder(config->path, fault);
	if (r < 0)
		return r;
	r = io_replace_file(config->path, text.data, text.length, 0600);
	if (r < 0)
		return cli_fail(fault, r, "cannot write %s: %s", config->path, strerror(-r));
	return 0;
}
