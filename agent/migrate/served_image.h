/* SPDX-License-Identifier: Apache-2.0 */
/* An image that is not raw, and that no guest has, as an endpoint: through a program that knows its
 * format (target/image_server.h), whose folder is in the journal before it is made. */
#ifndef FERRY_AGENT_MIGRATE_SERVED_IMAGE_H
#define FERRY_AGENT_MIGRATE_SERVED_IMAGE_H

#include "agent/copy/endpoint.h"
#include "agent/migrate/supervisor.h"

/* Of resources; the name is the server's folder. */
#define SERVED_IMAGE_KIND "image-server"

struct served_image;

struct served_image_params {
	const char *owner; /* of the row */
	const char *path;
	bool writable;
};

/* Sets spec's kind, socket_path and export_name, which are the server's own. Blocks up to 20 s.
 * -EOPNOTSUPP: this host lacks the program. */
int served_image_open(const struct supervisor_params *params,
	const struct served_image_params *image, const struct cancel *cancel,
	struct endpoint_spec *spec, struct served_image **ret_served, struct fault *fault);
/* After every endpoint of it was closed. Blocks. NULL is fine; returns NULL. */
struct served_image *served_image_close(struct served_image *served);
/* What an earlier daemon left; its servers died with it. */
void served_image_forget(struct agent_db *agent, const struct resource_row *row);

#endif
