/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/raw_disk.h"

#include "agent/copy/endpoint.h"
#include "agent/copy/zero.h"
#include "agent/migrate/served_image.h"
#include "agent/migrate/supervisor_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "target/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 4096
#define READING   "copy"
#define WRITING   "update"
/* Zeros that follow each other become one hole, but so that none takes long. */
#define HOLE_MAX_BYTES (UINT64_C(64) << 20)
#define AGAIN_USEC     (1 * USEC_PER_SEC)

struct raw_disk {
	const struct supervisor_params *params;
	char *uuid; /* owner of its resources */
	char *key;
	char *vdi;
	char *sr;
	char *path;
	struct cancel *cancel;
	bool is_free;                /* the mark is gone */
	struct served_image *server; /* NULL: the image is raw */
	struct endpoint *endpoint;
	char *buffer; /* of RAW_DISK_BYTES and a block on either side */
	size_t n_filled;
	uint64_t position;  /* of what is in the buffer, on the disk */
	struct extent hole; /* zeros before it, not written yet */
};

/* --- The mark -----------------------------------------------------------------------------------
 */

static int mark(struct raw_disk *disk, const char *operation, struct fault *fault)
{
	const struct storage *storage = disk->params->storage;
	struct value *detail CLEANUP_VALUE = value_new_struct();

	value_set_string(detail, "key", disk->key);
	value_set_string(detail, "vdi", disk->vdi);
	int r = resource_record(
		storage->agent, disk->uuid, RAW_DISK_KIND, disk->uuid, detail, NULL, fault);
	return r < 0 ? r
		     : vdi_ensure_operation(storage->pool, disk->vdi, disk->key, operation, fault);
}

static int settle(const struct storage *storage, const char *uuid, const char *vdi, const char *key,
	struct fault *fault)
{
	int r = vdi_forget_operation(storage->pool, vdi, key, fault);

	return r < 0 ? r : resource_forget_name(storage->agent, RAW_DISK_KIND, uuid, fault);
}

int raw_disk_settle_row(
	const struct storage *storage, const struct resource_row *row, struct fault *fault)
{
	return settle(storage, row->name, value_find_string(row->detail, "vdi", ""),
		value_find_string(row->detail, "key", ""), fault);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

int raw_disk_release(struct raw_disk *disk, struct fault *fault)
{
	endpoint_close(disk->endpoint);
	served_image_close(disk->server);
	disk->endpoint = NULL;
	disk->server = NULL;
	int r = disk->is_free
			? 0
			: settle(disk->params->storage, disk->uuid, disk->vdi, disk->key, fault);
	disk->is_free = r == 0;
	return r;
}

struct raw_disk *raw_disk_close(struct raw_disk *disk)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (!disk)
		return NULL;
	int r = raw_disk_release(disk, &fault);
	/* A database is away, or full: until it can be told the disk is nobody else's. */
	while (r < 0 && cancel_sleep(disk->cancel, AGAIN_USEC) == 0)
		r = raw_disk_release(disk, &fault);
	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("RAW-DISK-LEFTOVER",
			"vdi=%s error=\"%s\": it is tried again at the next start", disk->vdi,
			text);
	}
	/* Only figures; they are looked at again before long. */
	if (disk->sr)
		sr_refresh(disk->params->storage, disk->sr, NULL);
	free(disk->buffer);
	free(disk->path);
	free(disk->sr);
	free(disk->vdi);
	free(disk->key);
	free(disk->uuid);
	free(disk);
	return NULL;
}

static int check_writable(struct pool_db *pool, const char *vdi, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(pool, "VDI", vdi, &record, fault);

	if (r < 0)
		return r;
	if (value_find_bool(record, "read_only", false) ||
		value_find_bool(record, "is_a_snapshot", false))
		return fault_set(fault, -EROFS, "VDI_READONLY", vdi, NULL);
	return 0;
}

static int open_image(struct raw_disk *disk, bool writable, struct fault *fault)
{
	struct endpoint_spec spec = {
		.kind = ENDPOINT_FILE, .path = disk->path, .writable = writable};
	const struct served_image_params image = {
		.owner = disk->uuid, .path = disk->path, .writable = writable};
	int r = 0;

	if (image_format_of(disk->path) != IMAGE_RAW)
		r = served_image_open(
			disk->params, &image, disk->cancel, &spec, &disk->server, fault);
	return r < 0 ? r : endpoint_open(&spec, disk->cancel, &disk->endpoint, fault);
}

int raw_disk_open(struct supervisor *supervisor, const struct raw_disk_request *request,
	struct raw_disk **ret_disk, struct fault *fault)
{
	const struct storage *storage = supervisor->params->storage;
	int r = object_check(storage->pool, "VDI", request->vdi, fault);

	if (r == 0 && request->writable)
		r = check_writable(storage->pool, request->vdi, fault);
	if (r < 0)
		return r;
	struct raw_disk *disk CLEANUP_RAW_DISK = xcalloc(1, sizeof(*disk));
	disk->params = supervisor->params;
	disk->uuid = uuid_new();
	disk->key = xstrdup(request->task);
	disk->vdi = xstrdup(request->vdi);
	disk->cancel = request->cancel;
	if (posix_memalign((void **)&disk->buffer, ALIGNMENT, RAW_DISK_BYTES + 2 * ALIGNMENT))
		return fault_errno(fault, -ENOMEM, "no memory for the transfer");
	r = mark(disk, request->writable ? WRITING : READING, fault);
	if (r == 0)
		r = object_get_string(storage->pool, "VDI", disk->vdi, "SR", &disk->sr, fault);
	if (r == 0)
		r = vdi_path(storage, disk->vdi, &disk->path, fault);
	if (r == 0)
		r = open_image(disk, request->writable, fault);
	if (r < 0)
		return r;
	*ret_disk = TAKE_PTR(disk);
	return 0;
}

uint64_t raw_disk_size(const struct raw_disk *disk)
{
	return endpoint_size(disk->endpoint);
}

/* --- Reading ------------------------------------------------------------------------------------
 */

int raw_disk_read(struct raw_disk *disk, uint64_t offset, size_t length, const char **ret_data,
	struct fault *fault)
{
	uint64_t block = endpoint_block_size(disk->endpoint);
	uint64_t from = offset / block * block;
	uint64_t to = (offset + length + block - 1) / block * block;
	const struct extent extent = {from, MIN(to, raw_disk_size(disk)) - from};
	uint64_t data;
	int r = endpoint_first_data(disk->endpoint, extent, &data, fault);

	if (r == 0 && data >= extent.offset + extent.length)
		memset(disk->buffer, 0, extent.length);
	else if (r == 0)
		r = endpoint_read(disk->endpoint, extent, disk->buffer, disk->cancel, fault);
	*ret_data = disk->buffer + (offset - from);
	return r;
}

/* --- Writing ------------------------------------------------------------------------------------
 */

/* What the storage says becomes what XenAPI calls it. */
static int explain(const struct raw_disk *disk, int error, struct fault *fault)
{
	if (error != -ENOSPC && error != -EDQUOT)
		return error;
	char *text CLEANUP_FREE = xasprintf("no space left for the disk %s in its SR", disk->path);
	return fault_set(fault, error, "SR_BACKEND_FAILURE_44", "", text, "", NULL);
}

static int write_hole(struct raw_disk *disk, struct fault *fault)
{
	struct extent hole = disk->hole;

	disk->hole.length = 0;
	return hole.length ? endpoint_zero(disk->endpoint, hole, disk->cancel, fault) : 0;
}

static int add_hole(struct raw_disk *disk, struct extent zeros, struct fault *fault)
{
	if (!disk->hole.length)
		disk->hole.offset = zeros.offset;
	disk->hole.length += zeros.length;
	return disk->hole.length < HOLE_MAX_BYTES ? 0 : write_hole(disk, fault);
}

/* Writes the first length bytes of the buffer, whole blocks. */
static int write_out(struct raw_disk *disk, size_t length, struct fault *fault)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < length) {
		bool is_zero;
		size_t n = zero_run(disk->buffer + at, length - at, &is_zero);
		struct extent extent = {disk->position + at, n};
		if (is_zero) {
			r = add_hole(disk, extent, fault);
		} else {
			r = write_hole(disk, fault);
			if (r == 0)
				r = endpoint_write(disk->endpoint, extent, disk->buffer + at,
					disk->cancel, fault);
		}
		at += n;
	}
	disk->position += length;
	disk->n_filled -= length;
	return r < 0 ? explain(disk, r, fault) : 0;
}

char *raw_disk_space(struct raw_disk *disk, size_t *ret_length)
{
	*ret_length = RAW_DISK_BYTES - disk->n_filled;
	return disk->buffer + disk->n_filled;
}

int raw_disk_wrote(struct raw_disk *disk, size_t length, struct fault *fault)
{
	char *size CLEANUP_FREE = NULL;

	disk->n_filled += length;
	if (disk->n_filled > raw_disk_size(disk) - disk->position) {
		size = xasprintf("%llu", (unsigned long long)(disk->position + disk->n_filled));
		return fault_set(fault, -EFBIG, "VDI_TOO_SMALL", disk->vdi, size, NULL);
	}
	return disk->n_filled < RAW_DISK_BYTES ? 0 : write_out(disk, RAW_DISK_BYTES, fault);
}

/* What follows the last bytes within their block stays as it is. */
static int fill_block(struct raw_disk *disk, struct fault *fault)
{
	size_t block = endpoint_block_size(disk->endpoint);
	size_t rest = disk->n_filled % block;
	char *last = disk->buffer + (disk->n_filled - rest);
	char *kept CLEANUP_FREE = xcalloc(1, block);

	if (!rest)
		return 0;
	memcpy(kept, last, rest);
	const struct extent extent = {disk->position + (disk->n_filled - rest), block};
	/* It may be within the zeros that are not written yet. */
	int r = write_hole(disk, fault);
	if (r == 0)
		r = endpoint_read(disk->endpoint, extent, last, disk->cancel, fault);
	memcpy(last, kept, rest);
	disk->n_filled += block - rest;
	return r;
}

int raw_disk_finish(struct raw_disk *disk, struct fault *fault)
{
	int r = fill_block(disk, fault);

	if (r == 0)
		r = write_out(disk, disk->n_filled, fault);
	if (r == 0)
		r = write_hole(disk, fault);
	if (r == 0)
		r = endpoint_flush(disk->endpoint, disk->cancel, fault);
	return r < 0 ? explain(disk, r, fault) : 0;
}
