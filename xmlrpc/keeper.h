/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts connections that take too long over one step, however steadily they dribble; private to the
 * server. (libmicrohttpd's own time-out starts anew with each byte.) */
#ifndef FERRY_XMLRPC_KEEPER_H
#define FERRY_XMLRPC_KEEPER_H

#include <stdint.h>

struct keeper;
struct kept; /* one connection */

struct keeper *keeper_start(void);
/* All connections have been removed. NULL is fine. */
struct keeper *keeper_stop(struct keeper *keeper);

/* fd stays the caller's, open until keeper_remove. At the deadline (checked each second or so) it
 * is shut down, which ends the connection wherever it is waited for. */
struct kept *keeper_add(struct keeper *keeper, int fd, uint64_t deadline_usec);
void keeper_set_deadline(struct keeper *keeper, struct kept *kept, uint64_t deadline_usec);
void keeper_remove(struct keeper *keeper, struct kept *kept);

#endif
