/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a host that is not the coordinator: it tells the coordinator that it is there, and
 * learns when it has been ejected. */
#ifndef FERRY_AGENT_POOL_MEMBER_H
#define FERRY_AGENT_POOL_MEMBER_H

#include "agent/pool/link.h"
#include "agent/pool/membership.h"

struct member;

struct member_params {
	struct link *link; /* borrowed */
	const struct membership *membership;
	const char *state_dir; /* its copy of the database is kept there */
	uint64_t copy_usec;    /* replica.h: interval_usec */
	/* This host's memory in bytes. */
	void (*memory)(int64_t *ret_total_bytes, int64_t *ret_free_bytes);
	/* The pool has ejected this host; once, from the member's thread. */
	void (*ejected)(void *arg);
	void *arg;
};

int member_start(
	const struct member_params *params, struct member **ret_member, struct fault *fault);
/* NULL is fine; returns NULL. */
struct member *member_stop(struct member *member);

/* Asks once whether the coordinator answers, runs the same version, and knows this host. 0, or a
 * fault; -EACCES: it does not know it (any more). url, fingerprint: how this host is reached.
 * membership gets the coordinator's ref and term; *ret_is_new: they were others. */
int member_greet(struct link *link, const char *url, const char *fingerprint,
	struct membership *membership, bool *ret_is_new, struct fault *fault);
/* After -EACCES: what this host takes along, when it was ejected: JSON, for the caller to free. 0,
 * or -ENOENT: nothing is known of it. */
int member_take_leave(struct link *link, const struct membership *membership, char **ret_bundle,
	struct fault *fault);
/* The bundle is stored here; the pool may forget it. */
void member_left(struct link *link, const struct membership *membership);

#endif
