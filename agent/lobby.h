/* SPDX-License-Identifier: Apache-2.0 */
/* The server of a host that waits for its pool's coordinator. Opens at the first wait. */
#ifndef FERRY_AGENT_LOBBY_H
#define FERRY_AGENT_LOBBY_H

#include "agent/config.h"
#include "agent/pool/membership.h"
#include "base/fault.h"

struct lobby;

struct lobby_params {
	const struct config *config;
	const struct membership *membership;
	int listen_fd; /* it gets a copy */
	const char *url;
	const char *certificate;
	const char *key;
	const char *fingerprint;
	/* It knows now what it is: that is stored. */
	void (*decided)(void *arg);
	void *arg;
};

int lobby_open(const struct lobby_params *params, struct lobby **ret_lobby, struct fault *fault);
/* NULL is fine; returns NULL. */
struct lobby *lobby_close(struct lobby *lobby);

#endif
