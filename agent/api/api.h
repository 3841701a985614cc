/* SPDX-License-Identifier: Apache-2.0 */
/* The XenAPI methods: every row of the method table, with sessions, tasks and events behind them.
 * Validates, calls down, converts; decides nothing about storage or migrations. */
#ifndef FERRY_AGENT_API_API_H
#define FERRY_AGENT_API_API_H

#include "agent/migrate/supervisor.h"
#include "agent/pool/membership.h"
#include "agent/storage/storage.h"
#include "agent/vm/guests.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "xmlrpc/dispatch.h"
#include "xmlrpc/http_stream.h"

#include <stdint.h>
#include <stdio.h>

struct api;
struct link;
struct witness;

/* Pointers are borrowed for the api's life, strings are copied. */
struct api_params {
	struct storage *storage;
	struct supervisor *supervisor;
	struct guests *guests;
	const char *host_ref;
	const char *pool_ref;
	uint64_t session_timeout_usec; /* idle sessions end; 0: 24 h */
	uint64_t login_delay_usec;     /* how long a refused login waits for its answer */
	const char *pam_socket;        /* of ferry-pam; borrowed */

	/* Pools of several hosts. */
	const char *state_dir;
	const char *url;         /* how other hosts reach this one */
	const char *fingerprint; /* of its certificate */
	const char
		*coordinator; /* a member: what clients are told; NULL: this is the coordinator */
	const struct membership *membership; /* a member's, or of one that was overruled; borrowed
					      * for the call */
	/* It waits for the coordinator: there is no storage, supervisor and guests, and what can
	 * be asked of it is what ends the waiting. */
	bool is_waiting;
	uint64_t copy_usec;      /* the coordinator: how old a member's copy of pool.db may be */
	struct link *link;       /* a member's, to its coordinator */
	struct witness *witness; /* the coordinator's: is given the hosts; may be NULL */
	/* This host has joined a pool: the daemon is to start anew, soon. */
	void (*restart)(void *arg);
	void *restart_arg;
};

/* Builds the method table, takes in the sessions of former runs and their tasks that stand for
 * migrations, ends their other pending tasks as failed, starts the threads. Blocks on the database.
 */
int api_new(const struct api_params *params, struct api **ret_api, struct fault *fault);

/* Owned by the api. */
struct dispatcher *api_dispatcher(struct api *api);
const struct http_streams *api_streams(struct api *api);

/* Ends every pending call but those of running tasks, and refuses new tasks and peer calls. Work
 * that runs is ended by who does it (supervisor_stop). Does not block for long. */
void api_close(struct api *api);

/* Closes if needed, waits for the task and peer threads, frees. NULL is fine; returns NULL. */
struct api *api_free(struct api *api);

/* docs/api.md: the class list and the method table as Markdown. */
void api_print_docs(struct api *api, FILE *out);

DEFINE_CLEANUP(struct api *, api_free)
#define CLEANUP_API CLEANUP(cleanup_api_free)

#endif
