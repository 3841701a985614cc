/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/alloc.h"
#include "base/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static int threshold = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	__atomic_store_n(&threshold, (int)level, __ATOMIC_RELAXED);
}

void log_write(enum log_level level, const char *id, const char *format, ...)
{
	va_list args;

	if ((int)level > __atomic_load_n(&threshold, __ATOMIC_RELAXED))
		return;
	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	/* One event is one line: a newline in a value must not forge another event. */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';

	struct timespec now;
	struct tm utc;
	char when[32];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
	char *line CLEANUP_FREE = xasprintf(
		"<%d>%s.%03ldZ %s %s\n", (int)level, when, now.tv_nsec / 1000000, id, text);
	fputs(line, stderr);
}
