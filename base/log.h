/* SPDX-License-Identifier: Apache-2.0 */
/* Logging to standard error, one line an event: "<level>ID key=value ...".
 * The level prefix is what systemd's journal understands (SyslogLevelPrefix). An id is stable:
 * operators grep for it. Never log bodies of requests or credentials. */
#ifndef FERRY_BASE_LOG_H
#define FERRY_BASE_LOG_H

enum log_level {
	LOG_LEVEL_NONE = -1,
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARN = 4,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7
};

/* What is less urgent than this is dropped (LOG_LEVEL_NONE: everything). Default: LOG_LEVEL_INFO.
 */
void log_set_level(enum log_level level);

void log_write(enum log_level level, const char *id, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(id, ...) log_write(LOG_LEVEL_ERROR, id, __VA_ARGS__)
#define log_warn(id, ...)  log_write(LOG_LEVEL_WARN, id, __VA_ARGS__)
#define log_info(id, ...)  log_write(LOG_LEVEL_INFO, id, __VA_ARGS__)
#define log_debug(id, ...) log_write(LOG_LEVEL_DEBUG, id, __VA_ARGS__)

#endif
