/* SPDX-License-Identifier: Apache-2.0 */
/* What the two clients of this layer share: whom they trust, and how they wait. Handles of libcurl,
 * whose header is not seen here; private to the layer. */
#ifndef FERRY_XMLRPC_CLIENT_CURL_H
#define FERRY_XMLRPC_CLIENT_CURL_H

#include "base/cancel.h"
#include "xmlrpc/client.h"

#include <stdint.h>

/* Once in a process, before any handle. */
void client_curl_init(void);
/* What every transfer has, for a CURL. */
void client_curl_set_transfer(void *easy, const char *url, char *error_text);
/* -EINVAL: the fingerprint is not in form. */
int client_curl_set_trust(void *easy, const struct client_params *params);
/* Runs a CURL in a CURLM. 0: *ret_result is its CURLcode; -ETIMEDOUT, -ECANCELED. Blocks. */
int client_curl_perform(
	void *multi, void *easy, uint64_t deadline_usec, struct cancel *cancel, int *ret_result);

#endif
