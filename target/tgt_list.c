/* SPDX-License-Identifier: Apache-2.0 */
#include "target/tgt_list.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "target/tgt_internal.h"

#include <errno.h>
#include <string.h>

static int show(struct tgt *tgt, enum tgt_mode mode, struct buf *text)
{
	int r = tgt_ask(tgt,
		&(struct tgt_request){.mode = mode, .op = TGT_OP_SHOW, .tid = TGT_TID_ALL},
		clock_deadline(TGT_ANSWER_USEC), text);

	return r > 0 ? -EPROTO : r;
}

/* The rest of each line that begins with prefix, from behind the separator on. */
static struct value *collect(const struct buf *text, const char *prefix, const char *separator)
{
	struct value *names = value_new_array();

	for (const char *line = text->data; line && *line;) {
		size_t length = strcspn(line, "\n");
		char *copy CLEANUP_FREE = xstrndup(line, length);
		const char *name = strstr(copy, separator);
		if (strncmp(copy, prefix, strlen(prefix)) == 0 && name)
			value_append_string(names, name + strlen(separator));
		line += length + (line[length] == '\n');
	}
	return names;
}

int tgt_list(struct tgt *tgt, struct value **ret_targets, struct value **ret_accounts)
{
	struct buf targets CLEANUP_BUF = BUF_INIT;
	struct buf accounts CLEANUP_BUF = BUF_INIT;
	int r = show(tgt, TGT_MODE_TARGET, &targets);

	if (r == 0)
		r = show(tgt, TGT_MODE_ACCOUNT, &accounts);
	if (r < 0)
		return r;
	/* "Target 1: iqn...", "Account list:" and indented names. */
	*ret_targets = collect(&targets, "Target ", ": ");
	*ret_accounts = collect(&accounts, "    ", "    ");
	return 0;
}
