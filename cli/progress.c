/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/output.h"
#include "cli/record.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define REDRAW_USEC (100 * USEC_PER_MSEC)
#define BAR_COLUMNS 16

static size_t terminal_columns(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
		return 80;
	return size.ws_col;
}

static void append_bar(double fraction, struct buf *out)
{
	int full = (int)(fraction * BAR_COLUMNS);

	buf_append_char(out, '[');
	for (int i = 0; i < BAR_COLUMNS; i++)
		buf_append_char(out, i < full ? '#' : '.');
	buf_printf(out, "] %3d%%", (int)(fraction * 100));
}

/* What ferryd tells beyond XenAPI's fraction, in task.other_config. */
static void append_figures(const struct value *config, struct buf *out)
{
	int64_t total = record_int(config, "ferry:bytes_total", -1);
	int64_t done = record_int(config, "ferry:bytes_done", -1);
	int64_t rate = record_int(config, "ferry:rate", -1);
	int64_t eta = record_int(config, "ferry:eta", -1);

	if (total >= 0 && done >= 0) {
		char *done_text CLEANUP_FREE = output_size((uint64_t)done);
		char *total_text CLEANUP_FREE = output_size((uint64_t)total);
		buf_printf(out, "  %s of %s", done_text, total_text);
	}
	int64_t dirty = record_int(config, "ferry:bytes_dirty", -1);
	int64_t pause = record_int(config, "ferry:predicted_pause", -1);
	if (record_int(config, "ferry:rounds", 0) && dirty >= 0) {
		char *text CLEANUP_FREE = output_size((uint64_t)dirty);
		buf_printf(out, "  dirty %s", text);
		if (pause >= 0)
			buf_printf(out, "  pause ~%lld ms", (long long)pause);
		return;
	}
	if (rate > 0)
		buf_printf(out, "  %.1f MiB/s", (double)rate / (1 << 20));
	if (eta >= 0) {
		char *text CLEANUP_FREE = output_duration((uint64_t)eta);
		buf_printf(out, "  ETA %s", text);
	}
}

void progress_format(const struct value *task, size_t columns, struct buf *out)
{
	const struct value *config = value_find(task, "other_config");
	const char *state = value_find_string(config, "ferry:state", "");
	double fraction = record_double(task, "progress", 0);
	struct buf line CLEANUP_BUF = BUF_INIT;

	append_bar(fraction < 0 ? 0 : fraction > 1 ? 1 : fraction, &line);
	if (*state)
		buf_printf(&line, "  %s", state);
	append_figures(config, &line);
	char *clean CLEANUP_FREE = output_clean(line.data);
	buf_append(out, clean, MIN(strlen(clean), columns));
}

void progress_draw(struct progress *progress, const struct value *task)
{
	struct buf line CLEANUP_BUF = BUF_INIT;
	uint64_t now = clock_now_usec();

	if (!progress->enabled)
		return;
	if (progress->drawn && now - progress->drawn_usec < REDRAW_USEC)
		return;
	/* The last column stays free: some terminals wrap when it is written. */
	progress_format(task, terminal_columns() - 1, &line);
	fprintf(stderr, "\r%s\033[K", line.data);
	progress->drawn = true;
	progress->drawn_usec = now;
}

void progress_clear(struct progress *progress)
{
	if (progress->drawn)
		fputs("\r\033[K", stderr);
	progress->drawn = false;
}
