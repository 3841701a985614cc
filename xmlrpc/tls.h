/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's certificate: made once, self-signed; peers pin its fingerprint. */
#ifndef FERRY_XMLRPC_TLS_H
#define FERRY_XMLRPC_TLS_H

#include "base/fault.h"

/* Makes key (0600) and certificate (PEM, Ed25519 or ECDSA P-256, 20 years, subject and SAN = name
 * and address) unless both exist. */
int tls_ensure_certificate(const char *certificate_file, const char *key_file, const char *name,
	const char *address, struct fault *fault);

/* SHA-256 of the DER form, 64 lower-case hex digits; the caller frees it. */
int tls_fingerprint(const char *certificate_file, char **ret_fingerprint, struct fault *fault);

#endif
