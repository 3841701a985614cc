/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include "agent/config_value.h"
#include "base/alloc.h"

#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MS  UINT64_C(1000)
#define SEC (1000 * MS)
#define DAY (86400 * SEC)
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

/* One row per key. Text types point at a char *, LEVEL at an enum log_level, the rest at a
 * uint64_t; min and max bound the parsed value (bytes, microseconds, a count, a length). */
static const struct config_key keys[] = {
#define KEY(section_, name_, type_, member_, fallback_, ...)                                       \
	{                                                                                          \
		.section = section_, .name = name_, .type = CONFIG_##type_,                        \
		.offset = offsetof(struct config, member_), .fallback = fallback_, __VA_ARGS__     \
	}
	KEY("ferryd", "user", TEXT, user, "ferry", .max = 32),
	/* The run directory holds a socket per migration: sun_path has 108 bytes. */
	KEY("ferryd", "state_dir", PATH, state_dir, "/var/lib/ferry", .max = 1024),
	KEY("ferryd", "run_dir", PATH, run_dir, "/run/ferry", .max = CONFIG_RUN_DIR_MAX),
	KEY("ferryd", "listen", LISTEN, listen, "0.0.0.0:443"),
	KEY("ferryd", "address", HOST, address, "", .max = 253),
	KEY("ferryd", "data_address", NUMERIC, data_address, "127.0.0.1"),
	/* Bound without privileges, after the port of the API. */
	KEY("ferryd", "data_port", COUNT, data_port, "0", .min = 1024, .max = 65535,
		.zero = "the system's choice"),
	KEY("ferryd", "data_tls", SWITCH, data_tls, "on"),
	KEY("ferryd", "log_level", LEVEL, log_level, "info"),
	KEY("ferryd", "pool_name", NAME, pool_name, "", .max = 255),
	KEY("ferryd", "host_name", NAME, host_name, "", .max = 255),
	KEY("ferryd", "workers", COUNT, workers, "8", .min = 1, .max = 256),
	KEY("ferryd", "max_connections", COUNT, max_connections, "1024", .min = 8, .max = 65536),
	KEY("ferryd", "session_timeout", DURATION, session_timeout_usec, "1d", .min = SEC,
		.max = 365 * DAY),
	KEY("ferryd", "login_delay", DURATION, login_delay_usec, "5s", .max = 60 * SEC),
	KEY("ferryd", "pam_socket", PATH, pam_socket, "/run/ferry-pam.socket", .max = 100),
	KEY("migration", "max_sending", COUNT, max_sending, "3", .min = 1, .max = 64),
	KEY("migration", "max_queued", COUNT, max_queued, "100", .max = 256),
	KEY("migration", "heartbeat", DURATION, heartbeat_usec, "2s", .min = 50 * MS,
		.max = 60 * SEC),
	KEY("migration", "lease", DURATION, lease_usec, "15s", .min = 100 * MS, .max = DAY),
	KEY("migration", "abandon", DURATION, abandon_usec, "10min", .min = 200 * MS,
		.max = 365 * DAY),
	KEY("migration", "peer_timeout", DURATION, peer_timeout_usec, "1min", .min = 100 * MS,
		.max = DAY),
	KEY("migration", "max_downtime", DURATION, max_downtime_usec, "300ms", .min = MS,
		.max = 3600 * SEC),
	KEY("migration", "bandwidth", SIZE, bandwidth_bytes_per_sec, "0", .min = 64 * KIB,
		.max = UINT64_C(1) << 40, .zero = "unlimited"),
	KEY("pool", "copy_interval", DURATION, pool_copy_usec, "5s", .min = 200 * MS,
		.max = 3600 * SEC),
	KEY("copy", "sessions", COUNT, copy_sessions, "0", .min = 1, .max = 16,
		.zero = "the built-in default"),
	KEY("copy", "request_size", SIZE, copy_request_bytes, "0", .min = 4096, .max = 16 * MIB,
		.step = 4096, .zero = "the built-in default"),
	KEY("copy", "in_flight", SIZE, copy_in_flight_bytes, "0", .min = 64 * KIB, .max = 256 * MIB,
		.zero = "the built-in default"),
	KEY("tgt", "program", PATH, tgtd, "/usr/sbin/tgtd", .max = 1024),
	KEY("tgt", "threads", COUNT, tgtd_threads, "4", .min = 1, .max = 64),
	KEY("image", "qemu_img", PATH, qemu_img, "/usr/bin/qemu-img", .max = 1024),
	KEY("image", "qemu_nbd", PATH, qemu_nbd, "/usr/bin/qemu-nbd", .max = 1024),
	KEY("guest", "qemu", PATH, qemu, "/usr/bin/qemu-system-x86_64", .max = 1024),
	KEY("guest", "watchdog", PATH, watchdog, "/usr/libexec/ferry/ferry-watchdog", .max = 1024),
	KEY("guest", "shutdown_timeout", DURATION, shutdown_timeout_usec, "2min", .min = SEC,
		.max = DAY),
#undef KEY
};

/* --- Reading ------------------------------------------------------------------------------------
 */

/* Room for the longest value that any key allows; a longer line is an error, not a cut. */
#define LINE_MAX_BYTES 2048

struct reader {
	FILE *file;
	const char *path;
	unsigned line; /* that was read last */
	struct config *config;
	unsigned seen[ARRAY_SIZE(keys)]; /* line of each key; 0: not seen */
	struct buf errors;               /* one line each */
};

static void report(struct reader *reader, unsigned line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void report(struct reader *reader, unsigned line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	if (reader->errors.length)
		buf_append_char(&reader->errors, '\n');
	if (line)
		buf_printf(&reader->errors, "%s:%u: %s", reader->path, line, text);
	else
		buf_printf(&reader->errors, "%s: %s", reader->path, text);
}

static bool section_exists(const char *section, size_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strlen(keys[i].section) == length &&
			strncmp(keys[i].section, section, length) == 0)
			return true;
	return false;
}

/* inih says nothing of a section that holds no key, so headings are checked where they are read. */
static void check_heading(struct reader *reader, const char *line)
{
	struct buf allowed CLEANUP_BUF = BUF_INIT;
	const char *last = "";

	if (reader->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
		line += 3;
	line += strspn(line, " \t");
	const char *end = *line == '[' ? strchr(line, ']') : NULL;
	if (!end || section_exists(line + 1, (size_t)(end - line - 1)))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, last) != 0)
			buf_printf(&allowed, "%s[%s]", *last ? ", " : "", keys[i].section);
		last = keys[i].section;
	}
	report(reader, reader->line, "unknown section %.*s; allowed: %s", (int)(end - line + 1),
		line, allowed.data);
}

/* inih's source of lines: it tells the handler no line numbers, so they are counted here. */
static char *read_line(char *line, int size, void *arg)
{
	struct reader *reader = arg;

	if (!fgets(line, size, reader->file))
		return NULL;
	reader->line++;
	size_t length = strlen(line);
	if ((length > 0 && line[length - 1] == '\n') || feof(reader->file)) {
		check_heading(reader, line);
		return line;
	}
	report(reader, reader->line, "the line is longer than %d bytes, or holds a NUL byte",
		size - 2);
	for (int c = getc(reader->file); c != EOF && c != '\n';)
		c = getc(reader->file);
	/* What is left of it would only give a second, misleading message. */
	line[0] = '\0';
	return line;
}

static void report_unknown(struct reader *reader, const char *section, const char *name)
{
	struct buf allowed CLEANUP_BUF = BUF_INIT;

	if (!*section) {
		report(reader, reader->line, "%s stands before the first [section]", name);
		return;
	}
	if (!section_exists(section, strlen(section)))
		return; /* its heading was reported */
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].section, section) == 0)
			buf_printf(&allowed, "%s%s", allowed.length ? ", " : "", keys[i].name);
	report(reader, reader->line, "unknown key %s in [%s]; allowed: %s", name, section,
		allowed.data);
}

/* inih's handler. Always 1: its own return value is left to say where a line is not INI at all. */
static int read_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reader *reader = arg;
	size_t i = 0;

	while (i < ARRAY_SIZE(keys) &&
		(strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0))
		i++;
	if (i == ARRAY_SIZE(keys)) {
		report_unknown(reader, section, name);
		return 1;
	}
	if (reader->seen[i]) {
		report(reader, reader->line,
			"[%s] %s is given a second time (\"%s\"); it stands in line %u already",
			section, name, value, reader->seen[i]);
		return 1;
	}
	reader->seen[i] = reader->line;
	if (config_value_parse(&keys[i], value, reader->config) < 0) {
		char *allowed CLEANUP_FREE = config_value_allowed(&keys[i]);
		report(reader, reader->line, "[%s] %s = \"%s\" is not valid; allowed: %s", section,
			name, value, allowed);
	}
	return 1;
}

static void read_file(struct reader *reader)
{
	/* Our own buffer size, and none of the extras of which a typing error could make a value:
	 * an indented line is a line, and ';' inside a value belongs to it. */
	ini_use_stack = false;
	ini_allow_realloc = false;
	ini_max_line = LINE_MAX_BYTES;
	ini_initial_alloc = LINE_MAX_BYTES;
	ini_allow_multiline = false;
	ini_allow_inline_comments = false;

	int r = ini_parse_stream(read_line, reader, read_key, reader);
	if (r > 0)
		report(reader, (unsigned)r,
			"neither a [section], nor key = value, nor a comment (# or ;)");
	else if (r < 0)
		report(reader, 0, "out of memory while reading");
	if (ferror(reader->file))
		report(reader, 0, "read error: %s", strerror(errno));
}

/* --- What no single key can say
 * -------------------------------------------------------------------- */

static unsigned line_of(const struct reader *reader, const char *name)
{
	unsigned line = 0;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].name, name) == 0 && reader->seen[i])
			line = reader->seen[i];
	return line;
}

/* A lease that a single lost heartbeat ends, or an abandon time before its lease, cannot work. */
static void check_together(struct reader *reader)
{
	const struct config *config = reader->config;

	if (config->lease_usec < 2 * config->heartbeat_usec)
		report(reader, MAX(line_of(reader, "lease"), line_of(reader, "heartbeat")),
			"[migration] lease must be at least twice heartbeat");
	if (config->abandon_usec < config->lease_usec)
		report(reader, MAX(line_of(reader, "lease"), line_of(reader, "abandon")),
			"[migration] abandon must not be shorter than lease");
	if (config->copy_in_flight_bytes && config->copy_request_bytes &&
		config->copy_in_flight_bytes < config->copy_request_bytes)
		report(reader, MAX(line_of(reader, "in_flight"), line_of(reader, "request_size")),
			"[copy] in_flight must not be smaller than request_size");
}

int config_load(const char *path, struct config *config, struct fault *fault)
{
	FILE *file CLEANUP_FCLOSE = fopen(path, "re");

	if (!file) {
		int error = -errno;
		return fault_errno(fault, error, "cannot open the configuration %s", path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		config_value_parse(&keys[i], keys[i].fallback, config);

	struct reader reader = {.file = file, .path = path, .config = config};
	read_file(&reader);
	if (!reader.errors.length)
		check_together(&reader);
	if (reader.errors.length) {
		char *text CLEANUP_FREE = buf_take_string(&reader.errors);
		return fault_text(fault, -EINVAL, "%s", text);
	}
	config_value_complete(config);
	return 0;
}

void config_clear(struct config *config)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		config_value_clear(&keys[i], config);
	free(config->listen_host);
	memset(config, 0, sizeof(*config));
}

void config_print(const struct config *config, struct buf *out)
{
	const char *section = "";

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		char *text CLEANUP_FREE = config_value_format(&keys[i], config);
		if (strcmp(section, keys[i].section) != 0)
			buf_printf(out, "%s[%s]\n", *section ? "\n" : "", keys[i].section);
		section = keys[i].section;
		buf_printf(out, "%s = %s\n", keys[i].name, text);
	}
}
