/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <stdlib.h>

/* What `write` puts on standard error. */
static void captured(void (*write_lines)(void), char *text, size_t size)
{
	FILE *file CLEANUP_FCLOSE = tmpfile();
	int saved CLEANUP_CLOSE = dup(STDERR_FILENO);

	assert_non_null(file);
	assert_true(saved >= 0);
	fflush(stderr);
	assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
	write_lines();
	fflush(stderr);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	rewind(file);
	text[fread(text, 1, size - 1, file)] = '\0';
}

static void write_forged(void)
{
	log_warn("PEER-NAME", "name=%s", "x\n<3>2026-01-01T00:00:00.000Z FORGED\tby=\x7f");
}

static void a_newline_does_not_forge_a_second_event(void **state)
{
	char text[512];

	(void)state;
	captured(write_forged, text, sizeof(text));
	assert_int_equal(strncmp(text, "<4>", 3), 0);
	char *newline = strchr(text, '\n');
	assert_non_null(newline);
	assert_string_equal(newline, "\n");
	assert_non_null(strstr(text, " PEER-NAME name=x <3>"));
	assert_null(strpbrk(text, "\t\x7f"));
}

static void write_levels(void)
{
	log_set_level(LOG_LEVEL_WARN);
	log_error("A", "shown");
	log_warn("B", "shown");
	log_info("C", "dropped");
	log_debug("D", "dropped");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("E", "shown");
	log_set_level(LOG_LEVEL_INFO);
}

static void what_is_less_urgent_is_dropped(void **state)
{
	char text[512];

	(void)state;
	captured(write_levels, text, sizeof(text));
	assert_null(strstr(text, "dropped"));
	assert_non_null(strstr(text, " A shown\n"));
	assert_non_null(strstr(text, " B shown\n"));
	assert_non_null(strstr(text, "<7>"));
	assert_non_null(strstr(text, " E shown\n"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_newline_does_not_forge_a_second_event),
		cmocka_unit_test(what_is_less_urgent_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
