/* SPDX-License-Identifier: Apache-2.0 */
/* Fault points: named places at which a test makes this process fail, wait, hang or die.
 *
 * They are there in builds with FERRY_INJECT only (presets dev, asan, tsan); in any other the
 * macros are 0, their arguments are not evaluated, and no name of a point is in the program.
 * docs/testing.md lists the points.
 *
 * A point is armed by a file of its name in <state_dir>/inject/armed, which a test moves there
 * complete:
 *
 *     <20 digits: units that passed so far>
 *     ACTION [ARGUMENT] [after=UNITS] [from=BYTE] [to=BYTE] [always]
 *
 *     error EIO      the call that the point stands for fails with that errno
 *     delay 200      that many milliseconds pass
 *     hang           until the file is removed or replaced, at most 120 s; where the point has a
 *                    cancel token, until that is requested
 *     kill           SIGKILL for this process
 *
 * Each pass counts one unit, or as many bytes as it is about. The action is taken at the first pass
 * after `after` units, and once: the file has moved to inject/fired by then. With `always`, and
 * for a hang, it stays. The counter is written before anything happens and survives the process, so
 * a test can tell a fault that was taken from one that was never met.
 *
 * With `from` or `to`, for points that are about bytes of a disk, passes that have none of [from,
 * to) do not count: with `error EIO always`, bad sectors. */
#ifndef FERRY_BASE_INJECT_H
#define FERRY_BASE_INJECT_H

#include "base/cancel.h"
#include "base/fault.h"

#include <stdatomic.h>

#ifdef FERRY_INJECT

/* Points are looked for in <state_dir>/inject, if it is there when this is called: else none costs
 * more than a look at inject_is_on. Called before there are threads. */
void inject_open(const char *state_dir);
void inject_close(void);
extern atomic_bool inject_is_on;

/* 0 or the negative errno of the rule; -ECANCELED from a hang that was cancelled. May block. */
int inject_at(const struct cancel *cancel, uint64_t units, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same, of so many bytes at an offset. */
int inject_range_at(uint64_t offset, uint64_t length, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* As inject_at, with a fault that names the point. */
int inject_fault_at(const struct cancel *cancel, struct fault *fault, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define INJECT_OPEN(dir) inject_open(dir)
#define INJECT(...)      (inject_is_on ? inject_at(NULL, 1, __VA_ARGS__) : 0)
#define INJECT_BYTES(bytes, ...)                                                                   \
	(inject_is_on ? inject_at(NULL, (bytes) ? (uint64_t)(bytes) : 1, __VA_ARGS__) : 0)
#define INJECT_RANGE(offset, length, ...)                                                          \
	(inject_is_on ? inject_range_at((offset), (length), __VA_ARGS__) : 0)
#define INJECT_FAULT(fault, ...) (inject_is_on ? inject_fault_at(NULL, (fault), __VA_ARGS__) : 0)
#define INJECT_WAIT(cancel, fault, ...)                                                            \
	(inject_is_on ? inject_fault_at((cancel), (fault), __VA_ARGS__) : 0)

#else

/* Never called: the arguments are checked, and used, in every build. */
__attribute__((format(printf, 1, 2))) static inline int inject_none(const char *format, ...)
{
	(void)format;
	return 0;
}

#define INJECT_OPEN(dir)                  ((void)0)
#define INJECT(...)                       (0 ? inject_none(__VA_ARGS__) : 0)
#define INJECT_BYTES(bytes, ...)          INJECT(__VA_ARGS__)
#define INJECT_RANGE(offset, length, ...) INJECT(__VA_ARGS__)
#define INJECT_FAULT(fault, ...)          INJECT(__VA_ARGS__)
#define INJECT_WAIT(cancel, fault, ...)   INJECT(__VA_ARGS__)

#endif

#endif
