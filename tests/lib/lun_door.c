/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/lun_door.h"

#include "base/alloc.h"
#include "xmlrpc/tls.h"

#include <stdio.h>
#include <string.h>

#define NAME      "6f8c0e0a-9a2b-4c53-8a48-2b6e6f3b7c11/disks"
#define SECRET    "fedcba9876543210fedcba9876543210"
#define MAX_LINKS 64

static void must(int r, const struct fault *fault)
{
	if (r == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(fault);
	fprintf(stderr, "data port: %s\n", text);
	exit(1);
}

void lun_door_start(struct lun_door *door)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char template[] = "/tmp/ferry-door-XXXXXX";

	if (!mkdtemp(template))
		must(-1, &fault);
	*door = (struct lun_door){
		.dir = xstrdup(template),
		.certificate = xasprintf("%s/tls.crt", template),
		.key = xasprintf("%s/tls.key", template),
	};
	must(tls_ensure_certificate(door->certificate, door->key, "host", "127.0.0.1", &fault),
		&fault);
	must(tls_fingerprint(door->certificate, &door->fingerprint, &fault), &fault);
	const struct tunnel_params params = {
		.address = "127.0.0.1",
		.certificate_file = door->certificate,
		.key_file = door->key,
	};
	must(tunnel_start(&params, &door->tunnel, &fault), &fault);
}

void lun_door_stop(struct lun_door *door)
{
	tunnel_stop(door->tunnel);
	unlink(door->certificate);
	unlink(door->key);
	rmdir(door->dir);
	free(door->dir);
	free(door->certificate);
	free(door->key);
	free(door->fingerprint);
	*door = (struct lun_door){0};
}

void lun_door_lead_to(struct lun_door *door, uint16_t port)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const struct tunnel_door params = {
		.name = NAME, .secret = SECRET, .port = port, .max_links = MAX_LINKS};

	tunnel_close_door(door->tunnel, NAME);
	must(tunnel_open_door(door->tunnel, &params, &fault), &fault);
}

struct endpoint_spec lun_door_spec(const struct lun_door *door, struct endpoint_spec spec)
{
	spec.port = tunnel_port(door->tunnel);
	spec.door = NAME;
	spec.door_secret = SECRET;
	spec.fingerprint = door->fingerprint;
	return spec;
}
