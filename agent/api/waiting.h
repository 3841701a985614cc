/* SPDX-License-Identifier: Apache-2.0 */
/* A host that waits for its pool's coordinator (api_params.is_waiting): it has no database, and
 * serves who may tell it what to do. Clients are sent to the coordinator. Peers of migrations are
 * not answered, as if it were away: a refusal would end their moves. */
#ifndef FERRY_AGENT_API_WAITING_H
#define FERRY_AGENT_API_WAITING_H

#include "agent/api/context.h"

struct waiting;

struct waiting *waiting_new(void);
struct waiting *waiting_free(struct waiting *waiting); /* NULL is fine; after waiting_close */

int waiting_admit(struct api *api, const struct method *method, struct fault *fault);
/* The call of a peer: it is answered when the waiting is over, with what makes it try again. */
int waiting_hold(struct waiting *waiting, struct call *call, struct fault *fault);
void waiting_close(struct waiting *waiting);

#endif
