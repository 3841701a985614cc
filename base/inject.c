/* SPDX-License-Identifier: Apache-2.0 */
/* Built with FERRY_INJECT only. A pass looks for the file each time: what a test has put there
 * counts from its next step on, without a message to wait for. */
#include "base/inject.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_RULE  256
#define MAX_NAME  128
#define DIGITS    20
#define HANG_USEC (120 * USEC_PER_SEC)
#define SLICE     (2 * USEC_PER_MSEC)

enum action { ACTION_ERROR, ACTION_DELAY, ACTION_HANG, ACTION_KILL };

struct rule {
	enum action action;
	int error; /* negative errno */
	uint64_t delay_usec;
	uint64_t after;
	bool has_range;
	uint64_t from, to; /* of the bytes that it is about */
	bool always;
	uint64_t n_passed; /* units, before this pass */
};

atomic_bool inject_is_on;

static struct {
	pthread_mutex_t lock; /* one counter is read and written at a time */
	int armed_fd, fired_fd;
} points = {.lock = PTHREAD_MUTEX_INITIALIZER, .armed_fd = -1, .fired_fd = -1};

static int open_folder(const char *state_dir, const char *name)
{
	char *path CLEANUP_FREE = xasprintf("%s/inject/%s", state_dir, name);

	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void inject_open(const char *state_dir)
{
	points.armed_fd = open_folder(state_dir, "armed");
	points.fired_fd = open_folder(state_dir, "fired");
	inject_is_on = points.armed_fd >= 0 && points.fired_fd >= 0;
	if (inject_is_on)
		log_warn("FAULT-POINTS", "folder=%s/inject: a test can make this daemon fail",
			state_dir);
	else
		inject_close();
}

void inject_close(void)
{
	inject_is_on = false;
	cleanup_close(&points.armed_fd);
	cleanup_close(&points.fired_fd);
	points.armed_fd = points.fired_fd = -1;
}

/* --- Rules --------------------------------------------------------------------------------------
 */

static const struct {
	const char *name;
	int number;
} errors[] = {
	{"EACCES", EACCES},
	{"EBUSY", EBUSY},
	{"ECONNREFUSED", ECONNREFUSED},
	{"ECONNRESET", ECONNRESET},
	{"EIO", EIO},
	{"ENOENT", ENOENT},
	{"ENOMEM", ENOMEM},
	{"ENOSPC", ENOSPC},
	{"EOPNOTSUPP", EOPNOTSUPP},
	{"EPIPE", EPIPE},
	{"EREMOTEIO", EREMOTEIO},
	{"EROFS", EROFS},
	{"ETIMEDOUT", ETIMEDOUT},
};

/* A test that misspells its rule is to fail, not to pass without its fault. */
static _Noreturn void refuse_rule(const char *name, const char *text)
{
	log_error("FAULT-POINT", "name=%s rule=\"%s\" is none: see base/inject.h", name, text);
	abort();
}

static bool parse_error(const char *word, int *ret_error)
{
	for (size_t i = 0; word && i < ARRAY_SIZE(errors); i++) {
		if (strcmp(errors[i].name, word) != 0)
			continue;
		*ret_error = -errors[i].number;
		return true;
	}
	return false;
}

static bool parse_action(const char *word, char **rest, struct rule *rule)
{
	uint64_t msec = 0;

	if (strcmp(word, "kill") == 0)
		rule->action = ACTION_KILL;
	else if (strcmp(word, "hang") == 0)
		rule->action = ACTION_HANG;
	else if (strcmp(word, "error") == 0 && parse_error(strtok_r(NULL, " ", rest), &rule->error))
		rule->action = ACTION_ERROR;
	else if (strcmp(word, "delay") == 0) {
		const char *number = strtok_r(NULL, " ", rest);
		rule->action = ACTION_DELAY;
		if (!number || parse_uint64(number, &msec) < 0)
			return false;
		rule->delay_usec = msec * USEC_PER_MSEC;
	} else
		return false;
	return true;
}

static bool parse_condition(const char *word, struct rule *rule)
{
	if (strcmp(word, "always") == 0)
		return rule->always = true;
	if (strncmp(word, "after=", 6) == 0)
		return parse_uint64(word + 6, &rule->after) == 0;
	rule->has_range = true;
	if (strncmp(word, "from=", 5) == 0)
		return parse_uint64(word + 5, &rule->from) == 0;
	return strncmp(word, "to=", 3) == 0 && parse_uint64(word + 3, &rule->to) == 0;
}

static bool parse_rule(char *text, struct rule *rule)
{
	char *rest = NULL;
	const char *word;

	if (strlen(text) <= DIGITS || text[DIGITS] != '\n')
		return false;
	text[DIGITS] = '\0';
	rule->n_passed = strtoull(text, NULL, 10);
	rule->to = UINT64_MAX;
	char *line = text + DIGITS + 1;
	line[strcspn(line, "\n")] = '\0';
	word = strtok_r(line, " ", &rest);
	if (!word || !parse_action(word, &rest, rule))
		return false;
	while ((word = strtok_r(NULL, " ", &rest))) {
		if (!parse_condition(word, rule))
			return false;
	}
	return true;
}

/* --- Actions ------------------------------------------------------------------------------------
 */

static bool is_armed_with(const char *name, ino_t inode)
{
	struct stat st;

	return fstatat(points.armed_fd, name, &st, 0) == 0 && st.st_ino == inode;
}

static int hang(const struct cancel *cancel, const char *name, ino_t inode)
{
	uint64_t end = clock_deadline(HANG_USEC);

	while (is_armed_with(name, inode)) {
		if (clock_now_usec() > end) {
			log_error("FAULT-POINT", "name=%s nobody ends the hang", name);
			return 0;
		}
		if (cancel_sleep(cancel, SLICE) < 0)
			return -ECANCELED;
	}
	return 0;
}

static int take(const struct cancel *cancel, const char *name, const struct rule *rule, ino_t inode)
{
	static const char *const names[] = {"error", "delay", "hang", "kill"};

	log_warn("FAULT-POINT", "name=%s action=%s", name, names[rule->action]);
	switch (rule->action) {
	case ACTION_ERROR:
		return rule->error;
	case ACTION_DELAY:
		return cancel_sleep(cancel, rule->delay_usec);
	case ACTION_HANG:
		return hang(cancel, name, inode);
	case ACTION_KILL:
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
	return 0;
}

/* What passes: so many units, which may be bytes at an offset. */
struct passing {
	uint64_t units;
	bool has_offset;
	uint64_t offset;
};

static bool is_about(const struct rule *rule, const struct passing *passing)
{
	return !rule->has_range ||
	       (passing->offset < rule->to && rule->from < passing->offset + passing->units);
}

/* 1: the rule is to be followed now. Counts this pass. */
static int count_pass(
	const char *name, const struct passing *passing, struct rule *rule, ino_t *ret_inode)
{
	char text[MAX_RULE + 1] = "";
	char counter[DIGITS + 2];
	struct stat st;

	SCOPE_LOCK(&points.lock);
	int fd CLEANUP_CLOSE = openat(points.armed_fd, name, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || pread(fd, text, MAX_RULE, 0) < 0)
		return 0;
	char *copy CLEANUP_FREE = xstrdup(text);
	if (!parse_rule(copy, rule) || (rule->has_range && !passing->has_offset))
		refuse_rule(name, text);
	if (!is_about(rule, passing))
		return 0;
	uint64_t passed = rule->n_passed + passing->units;
	snprintf(counter, sizeof(counter), "%0*" PRIu64, DIGITS, passed);
	if (pwrite(fd, counter, DIGITS, 0) != DIGITS)
		refuse_rule(name, "the counter cannot be written");
	if (passed <= rule->after)
		return 0;
	if (!rule->always && rule->action != ACTION_HANG &&
		renameat(points.armed_fd, name, points.fired_fd, name) < 0)
		return 0;
	*ret_inode = st.st_ino;
	return 1;
}

static int pass(const struct cancel *cancel, const struct passing *passing, const char *name)
{
	struct rule rule = {0};
	ino_t inode = 0;

	return count_pass(name, passing, &rule, &inode) ? take(cancel, name, &rule, inode) : 0;
}

int inject_at(const struct cancel *cancel, uint64_t units, const char *format, ...)
{
	char name[MAX_NAME];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	return pass(cancel, &(struct passing){.units = units}, name);
}

int inject_range_at(uint64_t offset, uint64_t length, const char *format, ...)
{
	const struct passing passing = {
		.units = MAX(length, UINT64_C(1)), .has_offset = true, .offset = offset};
	char name[MAX_NAME];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	return pass(NULL, &passing, name);
}

int inject_fault_at(const struct cancel *cancel, struct fault *fault, const char *format, ...)
{
	char name[MAX_NAME];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	int r = pass(cancel, &(struct passing){.units = 1}, name);
	return r < 0 ? fault_errno(fault, r, "fault point %s", name) : 0;
}
