/* SPDX-License-Identifier: Apache-2.0 */
/* What earlier moves of this host's pool tell of the next one's pause. */
#ifndef FERRY_AGENT_MIGRATE_PAUSES_H
#define FERRY_AGENT_MIGRATE_PAUSES_H

#include "schema/pool_db.h"

#include <stdint.h>

/* What the latest pauses cost besides sending the last bytes: their median, in microseconds; 0 when
 * none is on record. Blocks on the database. */
uint64_t pauses_usual_usec(struct pool_db *pool);

#endif
