/* SPDX-License-Identifier: Apache-2.0 */
/* What one tgtd holds, by name. */
#ifndef FERRY_TARGET_TGT_LIST_H
#define FERRY_TARGET_TGT_LIST_H

#include "base/value.h"
#include "target/tgt.h"

/* Arrays of strings: names of targets, users of accounts. For people: an initiator that is logged
 * in can forge lines of the first. Blocks up to 4 s. -EPROTO, or what tgt_mgmt_call says. */
int tgt_list(struct tgt *tgt, struct value **ret_targets, struct value **ret_accounts);

#endif
