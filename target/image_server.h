/* SPDX-License-Identifier: Apache-2.0 */
/* A qemu-nbd that offers one image on a socket in a folder of its own: how an image that is not raw
 * is read, or written, while no guest runs from it. It is confined to that folder and that file,
 * whatever the image says, and dies with the daemon. */
#ifndef FERRY_TARGET_IMAGE_SERVER_H
#define FERRY_TARGET_IMAGE_SERVER_H

#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/fault.h"

#include <stdbool.h>

struct image_server;

struct image_server_params {
	const char *program; /* qemu-nbd */
	const char *folder;  /* is made; absolute, short enough for a socket in it */
	const char *image;   /* the format follows from its name */
	bool writable;
};

/* Blocks until it answers: up to 20 s, less when cancelled. What it writes is logged
 * (image.server). -EEXIST: image_server_forget_folder removes what is left there. After another
 * failure no process runs and the folder is gone. */
int image_server_start(const struct image_server_params *params, const struct cancel *cancel,
	struct image_server **ret_server, struct fault *fault);
/* Kills it and removes the folder. NULL is fine; returns NULL. */
struct image_server *image_server_stop(struct image_server *server);
/* Removes what a server that is dead left. 0 if nothing is there. */
int image_server_forget_folder(const char *folder);

/* Both are the server's own. */
const char *image_server_socket(const struct image_server *server);
const char *image_server_export(const struct image_server *server);

DEFINE_CLEANUP(struct image_server *, image_server_stop)
#define CLEANUP_IMAGE_SERVER CLEANUP(cleanup_image_server_stop)

#endif
