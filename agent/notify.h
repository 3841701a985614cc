/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager is told (sd_notify(3)); nothing happens without one. */
#ifndef FERRY_AGENT_NOTIFY_H
#define FERRY_AGENT_NOTIFY_H

void notify_ready(const char *status);
void notify_stopping(void);

#endif
