/* SPDX-License-Identifier: Apache-2.0 */
/* Finding zeros in what was read. */
#ifndef FERRY_AGENT_COPY_ZERO_H
#define FERRY_AGENT_COPY_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/* Zeros are found at this granularity: the block of the file systems that hold images, so that what
 * is skipped is what can stay unallocated. */
#define ZERO_BLOCK ((size_t)4096)

/* Whether all bytes are zero; true for none. */
bool zero_is_all(const void *data, size_t length);

/* Length of the run that starts at data: whole blocks (the last may be shorter) that are all zero,
 * or that all hold something. *ret_zero says which. length must not be 0. */
size_t zero_run(const void *data, size_t length, bool *ret_zero);

#endif
