/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/served_image.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/image_server.h"

#include <errno.h>

struct served_image {
	struct agent_db *agent;
	struct image_server *server;
	char *folder;
	int64_t row;
};

/* Only a row whose folder is gone is forgotten. */
static void forget_folder(struct agent_db *agent, const char *folder, int64_t row)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = image_server_forget_folder(folder);

	if (r < 0)
		fault_errno(&fault, r, "image server: remove %s", folder);
	else
		r = resource_forget(agent, row, &fault);
	if (r == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-IMAGE-LEFTOVER", "dir=%s error=\"%s\"", folder, text);
}

void served_image_forget(struct agent_db *agent, const struct resource_row *row)
{
	forget_folder(agent, row->name, row->id);
}

struct served_image *served_image_close(struct served_image *served)
{
	if (!served)
		return NULL;
	image_server_stop(served->server);
	if (served->row)
		forget_folder(served->agent, served->folder, served->row);
	free(served->folder);
	free(served);
	return NULL;
}

int served_image_open(const struct supervisor_params *params,
	const struct served_image_params *image, const struct cancel *cancel,
	struct endpoint_spec *spec, struct served_image **ret_served, struct fault *fault)
{
	struct agent_db *agent = params->storage->agent;
	char *unique CLEANUP_FREE = uuid_new();

	if (!params->qemu_nbd)
		return fault_text(fault, -EOPNOTSUPP,
			"disk %s is not raw, and this host knows no qemu-nbd, which reads it",
			image->path);
	struct served_image *served = xcalloc(1, sizeof(*served));
	served->agent = agent;
	/* Short, because a socket's path has 107 characters. */
	served->folder = xasprintf("%s/i%.8s", params->run_dir, unique);
	const struct image_server_params server = {
		.program = params->qemu_nbd,
		.folder = served->folder,
		.image = image->path,
		.writable = image->writable,
	};
	int r = resource_record(
		agent, image->owner, SERVED_IMAGE_KIND, served->folder, NULL, &served->row, fault);
	if (r == 0)
		r = image_server_start(&server, cancel, &served->server, fault);
	if (r < 0) {
		served_image_close(served);
		return r;
	}
	spec->kind = ENDPOINT_NBD;
	spec->socket_path = image_server_socket(served->server);
	spec->export_name = image_server_export(served->server);
	*ret_served = served;
	return 0;
}
