/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this host is a member of another host's pool: one small file beside its databases, which
 * is what decides after a crash.
 *
 *	no file                its own pool, in pool.db
 *	membership.joining     it has asked to join: the coordinator knows whether it did
 *	membership             a member; pool.db is not opened
 *	membership.overruled   it was the coordinator, and another host has taken over: pool.db is
 *	                       not opened, and nothing done, until that host takes it in
 */
#ifndef FERRY_AGENT_POOL_MEMBERSHIP_H
#define FERRY_AGENT_POOL_MEMBERSHIP_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>

/* All strings owned. */
struct membership {
	char *host;        /* ref of this host in that pool */
	char *url;         /* of the coordinator */
	char *fingerprint; /* of its certificate */
	char *secret;      /* shared with it */
	char *coordinator; /* its ref; "": it has not said so yet */
	int64_t term;      /* that it said to be of */
	enum membership_kind { MEMBERSHIP_FULL, MEMBERSHIP_JOINING, MEMBERSHIP_OVERRULED } kind;
};

void membership_clear(struct membership *membership);
/* 1: there is one; 0: none. */
int membership_load(const char *state_dir, struct membership *ret_membership, struct fault *fault);
/* Durable (0600) when it returns. A full one takes the place of whatever there is. */
int membership_store(
	const char *state_dir, const struct membership *membership, struct fault *fault);
/* It has joined: a joining host becomes a member. pool.db of its own pool is kept aside. */
int membership_confirm(const char *state_dir, struct fault *fault);
/* Its own pool again. */
int membership_remove(const char *state_dir, struct fault *fault);

#define CLEANUP_MEMBERSHIP CLEANUP(membership_clear)

#endif
