/* SPDX-License-Identifier: Apache-2.0 */
/* One XML-RPC call over HTTPS to a XenAPI server, with a deadline, a cancel token and a pinned
 * certificate. One client belongs to one thread; it keeps its connection between calls. */
#ifndef FERRY_XMLRPC_CLIENT_H
#define FERRY_XMLRPC_CLIENT_H

#include "base/cancel.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stdint.h>

struct client;

struct client_params {
	const char *url;         /* "https://host:port" with an optional path */
	const char *fingerprint; /* SHA-256 of the server's public key (SubjectPublicKeyInfo, DER),
				  * 64 hex digits, as tls_fingerprint gives it: only a server that
				  * holds that key is accepted; NULL or "": verified by ca_file or
				  * the system */
	const char *ca_file;     /* PEM; NULL: the system's */
	bool quiet;              /* its owner says in the log what does not answer */
};

struct client *client_new(const struct client_params *params);
struct client *client_free(struct client *client);

/* Calls method with the array params (borrowed). 0: *ret_result. Blocks until the answer, the
 * deadline or the cancel token. -EREMOTEIO: the server answered Failure, now in *fault.
 * -ETIMEDOUT, -ECANCELED, -ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH: no answer (whether the call
 * ran is unknown for all but -ECONNREFUSED and -EHOSTUNREACH; it never runs twice). -EKEYREJECTED:
 * the server does not hold the pinned key, or is not verified; nothing was sent. -EBADMSG: not an
 * XML-RPC answer, or one beyond codec_limits_response. -EINVAL: the url or the fingerprint is not
 * in form. -ENOMEM: no memory for the answer. All but the first set CANNOT_CONTACT_HOST [address,
 * reason] or, for -EKEYREJECTED, TLS_CONNECTION_FAILED [host, port, reason], and log it. */
int client_call(struct client *client, const char *method, const struct value *params,
	uint64_t deadline_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault);

DEFINE_CLEANUP(struct client *, client_free)
#define CLEANUP_CLIENT CLEANUP(cleanup_client_free)

#endif
