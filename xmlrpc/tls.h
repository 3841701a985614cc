/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's certificate: made once, self-signed; peers pin its fingerprint.
 *
 * The fingerprint is the SHA-256 of the SubjectPublicKeyInfo (RFC 7469, 2.4), not of the whole
 * certificate: the TLS library compares it within the handshake, before a byte of a request is
 * sent, and it stays the same when the certificate of a key is made anew. */
#ifndef FERRY_XMLRPC_TLS_H
#define FERRY_XMLRPC_TLS_H

#include "base/fault.h"

/* Makes key (0600) and certificate (PEM, ECDSA P-256, 20 years, subject and SAN = name and address)
 * unless both exist. A key alone gets a certificate; a certificate alone is an error. */
int tls_ensure_certificate(const char *certificate_file, const char *key_file, const char *name,
	const char *address, struct fault *fault);

/* SHA-256 of the public key (SubjectPublicKeyInfo, DER), 64 lower-case hex digits; the caller frees
 * it. */
int tls_fingerprint(const char *certificate_file, char **ret_fingerprint, struct fault *fault);

/* A fingerprint in libcurl's form, "sha256//<base64>"; the caller frees it. -EINVAL: not 64 hex
 * digits. */
int tls_fingerprint_pin(const char *fingerprint, char **ret_pin);

#endif
