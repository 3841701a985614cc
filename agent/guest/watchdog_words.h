/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent and a watchdog say to each other, a packet each, on a socket in the guest's run
 * folder. The end of the connection says that the agent is gone. */
#ifndef FERRY_AGENT_GUEST_WATCHDOG_WORDS_H
#define FERRY_AGENT_GUEST_WATCHDOG_WORDS_H

#define WATCHDOG_READY    "READY"    /* it is armed */
#define WATCHDOG_DISARM   "DISARM"   /* the agent's only word */
#define WATCHDOG_DISARMED "DISARMED" /* it will do nothing, and ends */
#define WATCHDOG_ACTED    "ACTED"    /* it has cancelled the move: the guest is as before it */
#define WATCHDOG_FAILED   "FAILED"   /* it tried, and cannot say that */

#define WATCHDOG_WORD_MAX 16

#endif
