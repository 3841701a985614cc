/* SPDX-License-Identifier: Apache-2.0 */
/* XenAPI's HTTP handlers: what has a path of its own, because its body or its answer is a file. */
#ifndef FERRY_AGENT_API_TRANSFERS_H
#define FERRY_AGENT_API_TRANSFERS_H

#include "base/fault.h"
#include "xmlrpc/http_stream.h"

#include <stddef.h>
#include <stdio.h>

/* At once; more are answered 503. Each has a thread and 600 KiB. */
#define TRANSFERS_MAX_RUNNING 16

struct api;
struct transfers;

struct transfers *transfers_new(struct api *api);
/* For the server; it and its members live as long as the transfers. */
const struct http_streams *transfers_streams(struct transfers *transfers);
/* No new ones; those that run see api->closing. */
void transfers_close(struct transfers *transfers);
/* Waits for what runs. NULL is fine; returns NULL. */
struct transfers *transfers_free(struct transfers *transfers);
size_t transfers_n_running(struct transfers *transfers);
/* What a former run of this host's agent was in the middle of: disks are free again, and tasks say
 * how far it came. */
void transfers_recover(struct api *api);
/* Their part of docs/api.md. */
void transfers_print_docs(FILE *out);

#endif
