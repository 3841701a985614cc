/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/migration_watch.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/errors.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LINE_USEC USEC_PER_SEC

static void append_size(struct buf *out, const char *before, int64_t bytes, const char *after)
{
	char *size CLEANUP_FREE = output_size((uint64_t)MAX(bytes, 0));

	buf_printf(out, "%s%s%s", before, size, after);
}

/* What only a guest that runs has. */
static void append_live(const struct value *record, struct buf *out)
{
	int64_t pause = record_int(record, "predicted_pause", -1);
	int64_t throttle = record_int(record, "throttle", 0);
	int64_t memory = record_int(record, "memory_sent", 0);

	buf_printf(out, "  round %lld", (long long)record_int(record, "rounds", 0));
	append_size(out, "  dirty ", record_int(record, "bytes_dirty", 0), "");
	append_size(out, " at ", record_int(record, "dirty_rate", 0), "/s");
	if (memory)
		append_size(out, "  memory ", memory, " sent");
	if (pause >= 0)
		buf_printf(out, "  pause ~%lld ms", (long long)pause);
	if (throttle)
		append_size(out, "  throttled to ", throttle, "/s");
}

void migration_watch_format(const struct value *record, struct buf *out)
{
	int64_t eta = record_int(record, "eta", -1);

	buf_printf(out, "%s  %.0f%%", value_find_string(record, "state", "?"),
		record_double(record, "progress", 0) * 100);
	append_size(out, "  sent ", record_int(record, "bytes_sent", 0), "");
	append_size(out, " of ", record_int(record, "bytes_total", 0), "");
	append_size(out, "  ", record_int(record, "rate", 0), "/s");
	if (eta >= 0) {
		char *text CLEANUP_FREE = output_duration((uint64_t)eta);
		buf_printf(out, "  ETA %s", text);
	}
	if (value_find_bool(record, "live", false) && record_int(record, "rounds", 0))
		append_live(record, out);
}

struct drawing {
	bool in_place;
	bool drawn;
	uint64_t drawn_usec;
	char *last;
};

static void draw(struct drawing *drawing, const struct value *record, bool has_ended)
{
	struct buf line CLEANUP_BUF = BUF_INIT;
	uint64_t now = clock_now_usec();

	if (drawing->drawn && !has_ended && now - drawing->drawn_usec < LINE_USEC)
		return;
	migration_watch_format(record, &line);
	char *text = output_clean(line.data);
	if (drawing->in_place)
		fprintf(stderr, "\r%s\033[K", text);
	else if (!drawing->last || strcmp(drawing->last, text) != 0)
		fprintf(stderr, "%s\n", text);
	drawing->drawn = true;
	drawing->drawn_usec = now;
	free(drawing->last);
	drawing->last = text;
}

static void contact_lost(void *arg)
{
	const struct drawing *drawing = arg;

	if (drawing->in_place && drawing->drawn)
		fputs("\r\033[K", stderr);
}

static bool has_ended(const struct value *record)
{
	const char *state = value_find_string(record, "state", "");

	return strcmp(state, "DONE") == 0 || strcmp(state, "FAILED") == 0 ||
	       strcmp(state, "CANCELLED") == 0;
}

int migration_watch(struct context *context, const struct object *migration, struct fault *fault)
{
	struct drawing drawing = {.in_place = context->progress};
	struct follow follow CLEANUP_FOLLOW = {.context = context,
		.class = "migration",
		.ref = migration->ref,
		.cancel = interrupt_first(),
		.lost = contact_lost,
		.arg = &drawing};
	struct value *record CLEANUP_VALUE = value_copy(migration->record);
	int r = 0;

	session_set_cancel(context->session, follow.cancel);
	draw(&drawing, record, has_ended(record));
	while (r == 0 && !has_ended(record)) {
		r = follow_next(&follow, &record, fault);
		if (r == 0)
			draw(&drawing, record, has_ended(record));
	}
	if (drawing.in_place && drawing.drawn)
		fputc('\n', stderr);
	free(drawing.last);
	if (r == -ECANCELED)
		return cli_fail(fault, r, "interrupted; the migration goes on");
	return r;
}
