/* SPDX-License-Identifier: Apache-2.0 */
/* A qemu-nbd of a test's own, with an image that it made, in a folder that is removed afterwards.
 */
#ifndef FERRY_TESTS_LIB_NBD_H
#define FERRY_TESTS_LIB_NBD_H

#include "agent/copy/endpoint.h"
#include "base/run.h"

#define NBD_EXPORT "disk"

struct nbd_fixture {
	char folder[64];
	char image[80];
	char socket[80];
	const char *format;
	struct child *child;
};

/* Whether qemu-nbd and qemu-img are installed. */
bool nbd_is_available(void);
/* Makes the folder and an empty image of that format ("raw", "qcow2"), and serves it. */
void nbd_start(struct nbd_fixture *nbd, const char *format, uint64_t size_bytes);
/* Serves the image again, after nbd_kill. */
void nbd_serve(struct nbd_fixture *nbd);
/* Ends the server and removes the folder. */
void nbd_stop(struct nbd_fixture *nbd);
void nbd_kill(struct nbd_fixture *nbd);
void nbd_signal(struct nbd_fixture *nbd, int signal);
/* A writable endpoint of it; the strings are the fixture's. */
struct endpoint_spec nbd_spec(const struct nbd_fixture *nbd);
/* Runs qemu-img with those arguments (NULL-terminated) and checks that it succeeds. */
void nbd_qemu_img(const char *const *arguments);

#endif
