/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/image_source.h"

#include "agent/guest/image_export.h"
#include "agent/migrate/served_image.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/image.h"

#include <errno.h>
#include <string.h>

/* Of resources; its detail has the VM whose guest it is. */
#define EXPORT_KIND "image-export"

struct image_source {
	struct migration *migration;
	char *path;
	struct served_image *server; /* of a halted VM's image that is not raw */
	struct image_export *export; /* of a running VM's image that is not raw */
	int64_t row;                 /* of the export; 0: none */
	struct endpoint_spec spec;
};

const struct endpoint_spec *image_source_spec(const struct image_source *source)
{
	return &source->spec;
}

static int serve(struct image_source *source, struct fault *fault)
{
	struct migration *m = source->migration;
	const struct served_image_params image = {.owner = m->uuid, .path = source->path};

	return served_image_open(
		m->params, &image, m->cancel, &source->spec, &source->server, fault);
}

static int export_node(struct image_source *source, struct guest *guest,
	const struct guest_node *node, struct fault *fault)
{
	struct migration *m = source->migration;
	struct value *detail CLEANUP_VALUE = value_new_struct();
	char *vm CLEANUP_FREE = migration_get_string(m, "vm");
	char *unique CLEANUP_FREE = uuid_new();
	char *name CLEANUP_FREE = xasprintf("%s.%s.%.8s", m->uuid, node->name, unique);

	value_set_string(detail, "vm", vm);
	int r = resource_record(
		m->params->storage->agent, m->uuid, EXPORT_KIND, name, detail, &source->row, fault);
	if (r == 0)
		r = image_export_open(guest, m->uuid, node, &source->export, fault);
	if (r < 0)
		return r;
	source->spec.kind = ENDPOINT_NBD;
	source->spec.socket_path = image_export_socket(source->export);
	source->spec.export_name = image_export_name(source->export);
	return 0;
}

/* As the guest itself has it: with cache=none, what it writes is seen for certain only by who reads
 * past the page cache too. */
static int follow_guest(struct image_source *source, struct guest *guest, struct fault *fault)
{
	struct guest_node node CLEANUP_GUEST_NODE = {0};
	int r = guest_node_find(guest, source->path, &node, fault);

	if (r < 0)
		return r;
	if (!node.is_raw)
		return export_node(source, guest, &node, fault);
	source->spec.direct = node.direct;
	return 0;
}

/* Since the plan was made, somebody may have put another file there. */
static int check_image(const char *path, uint64_t size_bytes, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	struct image_info info;
	int r = image_inspect(path, &info, &cause);

	if (r < 0)
		return fault_text(fault, r, "source disk %s: %s", path,
			cause.n_params ? cause.params[0] : strerror(-r));
	if (info.virtual_bytes != size_bytes)
		return fault_text(fault, -EIO,
			"source disk %s has %llu bytes, not the %llu that were planned", path,
			(unsigned long long)info.virtual_bytes, (unsigned long long)size_bytes);
	return 0;
}

int image_source_open(struct migration *m, const struct value *disk, struct guest *guest,
	struct image_source **ret_source, struct fault *fault)
{
	const char *path = value_find_string(disk, "path", "");
	uint64_t size_bytes = (uint64_t)value_find_int(disk, "size", 0);
	int r = check_image(path, size_bytes, fault);

	if (r < 0)
		return r;
	struct image_source *source CLEANUP_IMAGE_SOURCE = xcalloc(1, sizeof(*source));
	source->migration = m;
	source->path = xstrdup(path);
	source->spec = (struct endpoint_spec){
		.kind = ENDPOINT_FILE, .path = source->path, .size_bytes = size_bytes};
	if (guest)
		r = follow_guest(source, guest, fault);
	else if (image_format_of(path) != IMAGE_RAW)
		r = serve(source, fault);
	if (r < 0)
		return r;
	*ret_source = TAKE_PTR(source);
	return 0;
}

static void forget_row(struct agent_db *agent, int64_t row)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (resource_forget(agent, row, &fault) == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-IMAGE-LEFTOVER", "row=%lld error=\"%s\"", (long long)row, text);
}

struct image_source *image_source_close(struct image_source *source)
{
	if (!source)
		return NULL;
	struct agent_db *agent = source->migration->params->storage->agent;
	served_image_close(source->server);
	image_export_close(source->export);
	if (source->row)
		forget_row(agent, source->row);
	free(source->path);
	free(source);
	return NULL;
}

/* --- After a restart ----------------------------------------------------------------------------
 */

/* The guest may run on, and its QEMU with an export that nobody reads. */
static void recover_export(const struct supervisor_params *params, const struct resource_row *row)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const char *vm = value_find_string(row->detail, "vm", "");
	struct resident *resident = params->guests ? guests_hold(params->guests, vm) : NULL;
	int r = resident ? image_export_forget(resident_guest(resident), row->owner, &fault) : 0;

	if (resident)
		guests_release(resident);
	if (r == 0) {
		forget_row(params->storage->agent, row->id);
		return;
	}
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("MIG-IMAGE-LEFTOVER", "export=%s error=\"%s\"", row->name, text);
}

int image_source_recover(const struct supervisor_params *params, struct fault *fault)
{
	struct agent_db *agent = params->storage->agent;
	struct resource_row *rows = NULL;
	size_t n = 0;
	int r = resource_list(agent, NULL, NULL, &rows, &n, fault);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(rows[i].kind, SERVED_IMAGE_KIND) == 0)
			served_image_forget(agent, &rows[i]);
		if (strcmp(rows[i].kind, EXPORT_KIND) == 0)
			recover_export(params, &rows[i]);
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return r;
}
