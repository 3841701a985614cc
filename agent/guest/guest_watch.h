/* SPDX-License-Identifier: Apache-2.0 */
/* What feeds the watches of a guest (see guest.h): the list of its watches, which a watch keeps
 * alive, so that guest and watches may be freed in any order. Any thread may call. */
#ifndef FERRY_AGENT_GUEST_GUEST_WATCH_H
#define FERRY_AGENT_GUEST_GUEST_WATCH_H

#include "agent/guest/guest.h"
#include "base/value.h"

struct guest_events;

struct guest_events *guest_events_new(void);
/* What the watches hold stays readable; nothing more comes. NULL is fine; returns NULL. */
struct guest_events *guest_events_free(struct guest_events *events);
/* One event to every watch. data may be NULL. */
void guest_events_tell(struct guest_events *events, const char *name, const struct value *data);
/* The guest has ended: "ENDED" to every watch, also to those made later. */
void guest_events_end(struct guest_events *events);

struct guest_watch *guest_events_watch(struct guest_events *events);

#endif
