/* SPDX-License-Identifier: Apache-2.0 */
/* A file to or from one of XenAPI's HTTP handlers. */
#ifndef FERRY_XMLRPC_FILE_CLIENT_H
#define FERRY_XMLRPC_FILE_CLIENT_H

#include "base/cancel.h"
#include "base/fault.h"
#include "base/value.h"
#include "xmlrpc/client.h"

#include <stdbool.h>
#include <stdint.h>

#define FILE_LENGTH_UNKNOWN UINT64_MAX

struct file_transfer {
	struct client_params server; /* url: up to the port */
	const char *path;            /* "/export_raw_vdi" */
	const struct value *queries; /* struct of strings */
	bool is_upload;
	uint64_t length; /* of an upload */
	/* Upload: gives at most max bytes of the file: how many, 0 at its end. Download: takes max
	 * bytes: how many. Negative: an errno, which ends the transfer. May block. */
	ssize_t (*move)(void *arg, char *data, size_t max);
	/* Now and then: bytes so far, and in all (FILE_LENGTH_UNKNOWN). May be NULL. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	struct value **ret_answer; /* upload: what the server says about it, if it does; or NULL */
};

/* Blocks until it has ended; there is no deadline. Goes where another host of the pool is named.
 * -EREMOTEIO: the server refused, as *fault says; -ECANCELED; what move gave; else as client_call.
 */
int file_transfer(const struct file_transfer *transfer, struct cancel *cancel, struct fault *fault);

#endif
