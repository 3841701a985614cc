/* SPDX-License-Identifier: Apache-2.0 */
/* A database that another host serves, behind the interface of schema/db.h; and the serving side.
 *
 * A transaction of a client is a transaction on the server's file, kept open between messages under
 * a lease: it excludes all other writers, and is rolled back when its client falls silent. Writes
 * travel with the next statement whose result is waited for, or with the commit; one that fails
 * there undoes the whole transaction, not the inner scope alone. A DB_READ scope is no snapshot:
 * each statement sees what is committed. Blobs do not travel.
 *
 * Messages are JSON text. Each may be sent again when its answer was lost: a message of the open
 * transaction is answered from memory, a commit from a row that was stored with it. */
#ifndef FERRY_SCHEMA_DB_REMOTE_H
#define FERRY_SCHEMA_DB_REMOTE_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stdint.h>

struct db;

/* --- The client --------------------------------------------------------------------------------
 */

struct db_transport {
	/* Brings a request to the server and its answer back; the caller frees *ret_answer.
	 * -EREMOTEIO: the server refused, and the fault is its own. Any other failure: there was no
	 * answer, and nobody knows whether the request arrived. */
	int (*call)(void *arg, const char *request, char **ret_answer, struct fault *fault);
	void *arg;
	uint64_t patience_usec;        /* how long statements are tried without an answer */
	uint64_t commit_patience_usec; /* the same for a commit */
};

/* Sends nothing. The transport is copied, its arg borrowed. */
struct db *db_open_remote(const struct db_transport *transport);

/* --- The server --------------------------------------------------------------------------------
 */

/* A silent transaction is rolled back after so long, once somebody else wants to write. */
#define DB_SERVICE_LEASE_USEC (UINT64_C(3) * 1000000)

struct db_service;

struct db_service_params {
	struct db *db; /* a file, borrowed; from here on its writers and the clients' exclude each
			* other */
	/* Before a client's transaction commits, on its connection; may read. */
	int (*committing)(void *arg, struct db *guest, struct fault *fault);
	/* When it has, before anybody else can write. */
	void (*committed)(void *arg);
	/* After that, without locks. */
	void (*notify)(void *arg);
	void *arg;
	uint64_t lease_usec; /* 0: DB_SERVICE_LEASE_USEC */
};

/* Before other threads use the database. */
int db_service_new(const struct db_service_params *params, struct db_service **ret_service,
	struct fault *fault);
/* Rolls back what is open. NULL is fine; returns NULL. */
struct db_service *db_service_free(struct db_service *service);
/* One message of a client (named for the text of faults, and so that none speaks in another's
 * transaction). Blocks for other writers, for some seconds at most. */
int db_service_run(struct db_service *service, const char *client, const char *request,
	char **ret_answer, struct fault *fault);

DEFINE_CLEANUP(struct db_service *, db_service_free)

#endif
