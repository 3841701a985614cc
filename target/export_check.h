/* SPDX-License-Identifier: Apache-2.0 */
/* What may be told to tgtd at all. It cuts values at commas, replaces senseless ones and takes
 * files it cannot write, all with success, so everything is checked before. */
#ifndef FERRY_TARGET_EXPORT_CHECK_H
#define FERRY_TARGET_EXPORT_CHECK_H

#include "base/fault.h"
#include "target/export.h"

/* -EINVAL with a fault that names the value and what is allowed. */
int export_check_params(const struct export_params *params, struct fault *fault);

/* Opens the file as tgtd will (no link, regular, one name, right size, writable) and tells what it
 * is. Does not wait for a FIFO's other end. */
int export_check_file(const struct export_params *params, struct export_identity *ret_identity,
	struct fault *fault);

#endif
