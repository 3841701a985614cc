/* SPDX-License-Identifier: Apache-2.0 */
/* What every handler of this layer shares: the api that a call belongs to, and the tables of method
 * rows. */
#ifndef FERRY_AGENT_API_CONTEXT_H
#define FERRY_AGENT_API_CONTEXT_H

#include "agent/api/api.h"
#include "agent/api/roles.h"
#include "base/cancel.h"
#include "base/value.h"
#include "schema/pool_db.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct accessors;
struct auth;
struct events;
struct executions;
struct forwards;
struct guests;
struct handout;
struct jobs;
struct link;
struct locals;
struct roster;
struct sessions;
struct tasks;
struct transfers;
struct waiting;
struct witness;

struct api {
	struct storage *storage;
	struct pool_db *pool; /* storage's */
	struct supervisor *supervisor;
	struct guests *guests;
	char *host_ref;
	char *pool_ref;
	struct dispatcher *dispatcher;
	struct accessors *accessors;
	struct sessions *sessions;
	struct auth *auth;
	struct tasks *tasks;
	struct events *events;
	struct jobs *peer_jobs;
	struct transfers *transfers;
	/* Pools of several hosts. */
	char *state_dir;
	char *url;
	char *fingerprint;
	char *coordinator_address; /* NULL: this host is the coordinator */
	char *secret;              /* of a member, shared with the coordinator */
	struct link *link;         /* of a member, to the coordinator */
	struct roster *roster;     /* of the coordinator */
	struct witness *witness;   /* that knows the roster; NULL: none */
	int64_t term;              /* of the coordinator that this host follows, or is */
	char *coordinator_ref;
	char *coordinator_url;
	char *coordinator_fingerprint;
	bool is_overruled;        /* this host was that coordinator's predecessor, and waits */
	struct locals *locals;    /* of a member */
	struct waiting *waiting;  /* NULL: this host does not wait for its coordinator */
	pthread_mutex_t changing; /* whom this host follows */
	bool has_taken_over;      /* it is about to start anew as the coordinator; under changing */
	atomic_bool is_deposed;
	struct handout *handout; /* of the coordinator */
	struct forwards *forwards;
	struct executions *executions; /* of a member */
	atomic_bool is_joining;
	void (*restart)(void *arg);
	void *restart_arg;
	struct cancel *closing;
	pthread_t housekeeper;
	bool has_housekeeper;
};

static inline struct api *api_of(struct call *call)
{
	return call_context(call);
}

/* From here on no client changes anything: for a task that changes whose the pool is.
 * OTHER_OPERATION_IN_PROGRESS when another task runs. is_joining ends it. */
int api_close_for_clients(struct api *api, struct fault *fault);
/* Who calls, for the record: "root at 192.0.2.7". The caller frees it. */
int api_caller(struct call *call, char **ret_who, struct fault *fault);

/* The text of a string argument; "" when it was left out. */
static inline const char *arg_text(struct value *const *args, size_t i)
{
	return value_string(args[i], "");
}

/* Rows written by hand; the accessors of the class list are generated beside them and give way to
 * them. */
struct method_table {
	const struct method *methods;
	size_t n;
};

extern const struct method_table session_methods;
extern const struct method_table task_methods;
extern const struct method_table user_methods;
extern const struct method_table event_methods;
extern const struct method_table host_methods;
extern const struct method_table sr_methods;
extern const struct method_table pbd_methods;
extern const struct method_table vdi_methods;
extern const struct method_table copies_methods;
extern const struct method_table vm_methods;
extern const struct method_table vm_power_methods;
extern const struct method_table vm_limits_methods;
extern const struct method_table vbd_methods;
extern const struct method_table vif_methods;
extern const struct method_table network_methods;
extern const struct method_table migration_methods;
extern const struct method_table peer_methods;
extern const struct method_table doctor_methods;
extern const struct method_table pool_methods;
extern const struct method_table pool_hosts_methods;
extern const struct method_table emergency_methods;
extern const struct method_table handover_methods;

/* The middle of a row: parameters that are all mandatory, or the first n of them. */
#define PARAMS(list)             .params = (list), .n_params = ARRAY_SIZE(list), .n_mandatory = ARRAY_SIZE(list)
#define PARAMS_OPTIONAL(list, n) .params = (list), .n_params = ARRAY_SIZE(list), .n_mandatory = (n)

#endif
