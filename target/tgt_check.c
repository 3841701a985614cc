/* SPDX-License-Identifier: Apache-2.0 */
#include "target/tgt_check.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct address {
	int family;
	unsigned char bytes[sizeof(struct in6_addr)];
};

static bool parse_numeric(const char *text, struct address *ret_address)
{
	*ret_address = (struct address){.family = AF_INET};
	if (inet_pton(AF_INET, text, ret_address->bytes) == 1)
		return true;
	ret_address->family = AF_INET6;
	return inet_pton(AF_INET6, text, ret_address->bytes) == 1;
}

bool tgt_address_is_numeric(const char *address)
{
	static const unsigned char wildcard[sizeof(struct in6_addr)];
	struct address parsed;

	return parse_numeric(address, &parsed) &&
	       memcmp(parsed.bytes, wildcard, sizeof(wildcard)) != 0;
}

/* The next line of *text as a string of its own; NULL at the end. Each line ends with a newline. */
static char *next_line(const char **text)
{
	const char *end = strchr(*text, '\n');

	if (!end)
		return NULL;
	char *line = xstrndup(*text, (size_t)(end - *text));
	*text = end + 1;
	return line;
}

/* What follows prefix, or NULL. */
static const char *after(const char *line, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(line, prefix, n) == 0 ? line + n : NULL;
}

/* "127.0.0.1:3260,1" or "[::1]:3260,1". */
static int parse_portal_name(const char *name, const struct address *wanted, uint16_t *ret_port)
{
	const char *comma = strchr(name, ',');
	char *head CLEANUP_FREE = comma ? xstrndup(name, (size_t)(comma - name)) : NULL;
	char *host CLEANUP_FREE = NULL;
	struct address found;
	uint16_t port;

	if (!head || parse_address(head, &host, &port) < 0 || port == 0)
		return -EPROTO;
	if (!parse_numeric(host, &found) || memcmp(&found, wanted, sizeof(found)) != 0)
		return -EPROTO;
	*ret_port = port;
	return 0;
}

int tgt_parse_portal(const char *text, const char *address, uint16_t *ret_port)
{
	char *line CLEANUP_FREE = next_line(&text);
	const char *name = line ? after(line, "Portal: ") : NULL;
	struct address wanted;

	if (!name || *text || !parse_numeric(address, &wanted))
		return -EPROTO;
	return parse_portal_name(name, &wanted, ret_port);
}

void tgt_shown_clear(struct tgt_shown *shown)
{
	free(shown->path);
	free(shown->serial);
	*shown = (struct tgt_shown){0};
}

static void keep(char **slot, const char *text)
{
	free(*slot);
	*slot = xstrdup(text);
}

static void parse_lun_line(const char *line, struct tgt_shown *shown)
{
	const char *value;

	if ((value = after(line, "Readonly: ")))
		shown->writable = strcmp(value, "No") == 0;
	else if ((value = after(line, "Backing store type: ")))
		shown->rdwr = strcmp(value, "rdwr") == 0;
	else if ((value = after(line, "Backing store path: ")))
		keep(&shown->path, value);
	else if ((value = after(line, "SCSI SN: ")))
		keep(&shown->serial, value);
	else if (after(line, "Size: ") && (value = strstr(line, ", Block size: ")))
		if (parse_uint64(value + strlen(", Block size: "), &shown->block_size) < 0)
			shown->block_size = 0;
}

/* The lines of one target, its first ("Target 1: iqn") already read. */
static void parse_section(const char *text, struct tgt_shown *shown)
{
	char part[16] = "";
	uint64_t lun = UINT64_MAX;

	for (;;) {
		char *line CLEANUP_FREE = next_line(&text);
		const char *value;

		if (!line || after(line, "Target "))
			return;
		if (strncmp(line, "    ", 4) == 0 && line[4] != ' ') {
			/* "    Account information:" opens a part. */
			strncpy(part, line + 4, sizeof(part) - 1);
			continue;
		}
		if (after(part, "Account")) {
			shown->n_accounts++;
		} else if (after(part, "ACL")) {
			shown->n_acl++;
		} else if (after(part, "LUN") && (value = after(line, "        LUN: "))) {
			shown->n_luns++;
			if (parse_uint64(value, &lun) < 0)
				lun = UINT64_MAX;
		} else if (after(part, "LUN") && lun == 1 && after(line, "            ")) {
			parse_lun_line(line + 12, shown);
		}
	}
}

int tgt_parse_target(const char *text, uint32_t tid, const char *iqn, struct tgt_shown *ret_shown)
{
	char *numbered CLEANUP_FREE = xasprintf("Target %" PRIu32 ": ", tid);
	const char *section = NULL;

	for (;;) {
		char *line CLEANUP_FREE = next_line(&text);
		const char *name;

		if (!line)
			break;
		name = after(line, numbered);
		if (name && (section || strcmp(name, iqn) != 0))
			return -EPROTO;
		if (name)
			section = text;
	}
	if (!section)
		return -ENOENT;
	*ret_shown = (struct tgt_shown){0};
	parse_section(section, ret_shown);
	return 0;
}

int tgt_parse_connections(const char *text, struct tgt_connection *ret_connections, size_t max)
{
	size_t n = 0;

	/* Four lines each: session, connection, initiator, address. */
	while (*text) {
		char *session CLEANUP_FREE = next_line(&text);
		char *connection CLEANUP_FREE = session ? next_line(&text) : NULL;
		char *initiator CLEANUP_FREE = connection ? next_line(&text) : NULL;
		char *address CLEANUP_FREE = initiator ? next_line(&text) : NULL;
		const char *sid = session ? after(session, "Session: ") : NULL;
		const char *cid = connection ? after(connection, "    Connection: ") : NULL;
		struct tgt_connection found;
		uint64_t number;

		if (!address || !sid || !cid || !after(initiator, "        Initiator: ") ||
			!after(address, "        ") || parse_uint64(sid, &found.sid) < 0 ||
			parse_range(cid, 0, UINT32_MAX, &number) < 0)
			return -EPROTO;
		found.cid = (uint32_t)number;
		if (n == max)
			break;
		ret_connections[n++] = found;
	}
	return (int)n;
}

/* tid lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs
 */
static int parse_stat_line(const char *line, bool *ret_equal)
{
	uint64_t column[12];
	size_t n = 0;

	while (*(line += strspn(line, " "))) {
		size_t length = strcspn(line, " ");
		char *word CLEANUP_FREE = xstrndup(line, length);
		if (n == ARRAY_SIZE(column) || parse_uint64(word, &column[n++]) < 0)
			return -EPROTO;
		line += length;
	}
	if (n != ARRAY_SIZE(column))
		return -EPROTO;
	*ret_equal = column[7] == column[9] && column[8] == column[10];
	return 0;
}

int tgt_parse_writes_done(const char *text, bool *ret_done)
{
	char *header CLEANUP_FREE = next_line(&text);
	bool done = true;

	if (!header || !after(header, "tgt lun sid "))
		return -EPROTO;
	while (*text) {
		char *line CLEANUP_FREE = next_line(&text);
		bool equal = true;
		int r = line ? parse_stat_line(line, &equal) : -EPROTO;
		if (r < 0)
			return r;
		done = done && equal;
	}
	*ret_done = done;
	return 0;
}
