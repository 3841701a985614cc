/* SPDX-License-Identifier: Apache-2.0 */
/* Which key and certificate a server shows: for a person to compare and pin. Nothing is sent to it
 * but the TLS handshake, and nothing about it is believed. */
#ifndef FERRY_XMLRPC_PROBE_H
#define FERRY_XMLRPC_PROBE_H

#include "base/cancel.h"
#include "base/fault.h"

#include <stdint.h>

/* Both are SHA-256, 64 lower-case hex digits; the caller frees them. */
struct probe {
	char *key;         /* of the public key, as tls_fingerprint() and struct client_params */
	char *certificate; /* of the whole certificate (DER), as other programs show it */
};

#define PROBE_INIT                                                                                 \
	{                                                                                          \
		0                                                                                  \
	}

/* Blocks until the deadline or the token. -ETIMEDOUT, -ECANCELED, -EHOSTUNREACH, -ECONNREFUSED,
 * -EPROTO (no TLS there), each with CANNOT_CONTACT_HOST [url, reason]. */
int probe_server(const char *url, uint64_t deadline_usec, const struct cancel *cancel,
	struct probe *ret_probe, struct fault *fault);
void probe_clear(struct probe *probe);

#define CLEANUP_PROBE CLEANUP(probe_clear)

#endif
