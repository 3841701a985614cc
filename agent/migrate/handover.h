/* SPDX-License-Identifier: Apache-2.0 */
/* The pause of a guest that is moved: SWITCHING and HANDOVER of a sender, what follows the commit,
 * and the way back. */
#ifndef FERRY_AGENT_MIGRATE_HANDOVER_H
#define FERRY_AGENT_MIGRATE_HANDOVER_H

#include "agent/migrate/live.h"

/* Asks the destination to seal, with the VM's fields as they are now. */
int handover_ask_seal(struct migration *migration, struct peer *peer, struct fault *fault);

/* SWITCHING: the last round, then the seal. 0: sealed. 1: the guest runs
 * here again and nothing was sealed: there can be another try. */
int handover_seal(struct migration *migration, struct peer *peer, struct fault *fault);

/* HANDOVER: 0 when the destination's QEMU has all of the guest and the source's waits for its end.
 */
int handover_run(struct migration *migration, struct peer *peer, struct fault *fault);

/* Keeps what the pause was made of, with what the destination said of the commit. */
void handover_measure(struct migration *migration, const struct value *commit);

/* After a failure or a cancel before the commit: the guest runs on here, as if nothing had been.
 * Where QEMU has handed it over already, the destination is told first, and has ended its guest
 * when it answers; it cannot let it run without a commit that was never asked for. Nothing to do,
 * and 0, when the guest has ended. */
int handover_give_back(struct migration *migration, struct peer *peer, struct fault *fault);

#endif
