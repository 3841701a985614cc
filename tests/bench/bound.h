/* SPDX-License-Identifier: Apache-2.0 */
/* What the target allows: a sender that does nothing but send. The engine "bound" of copy.py. */
#ifndef FERRY_TESTS_BENCH_BOUND_H
#define FERRY_TESTS_BENCH_BOUND_H

#include "agent/copy/endpoint.h"
#include "base/fault.h"

#include <stddef.h>
#include <stdint.h>

#define BOUND_BYTES ((size_t)256 << 10)

/* Fills the target with copies of data (BOUND_BYTES, not changed) over the same sessions, requests
 * and depth as the copier's defaults, and flushes it. No source is read, nothing is hashed or
 * scanned, no checkpoint is made. Blocks. */
int bound_run(const struct endpoint_spec *target, void *data, struct fault *fault);

#endif
