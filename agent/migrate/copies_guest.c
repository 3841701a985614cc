/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot of a guest that runs on (copies_pause.c has the moment in which it does not). What it
 * writes is tracked from before the first read; after the first pass, in which each disk is copied
 * as it changes, come rounds over what was written meanwhile. When little is left the guest is
 * stopped, the rest of all its disks is read into memory, and it goes on: that is the moment which
 * the snapshot holds. Only its own disks are read in the pause. Where the snapshot goes may be
 * slow, or full: the guest does not notice. */
#include "agent/migrate/copies_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The guest is stopped when so little is left, or this much and rounds make it no less. */
#define FEW_BYTES  (UINT64_C(1) << 20)
#define LAST_BYTES (UINT64_C(16) << 20)
#define MAX_STOPS  5
#define MAX_ROUNDS 40
#define END_USEC   USEC_PER_SEC

/* --- Whose guest --------------------------------------------------------------------------------
 */

/* Of a disk alone: the VM that may write to it. Who else has it is in the way (mark_vdi). */
static int find_writer(
	struct pool_db *pool, const char *vdi, const char *vm, char **ret_vm, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VDI", vdi, &vbds, fault);

	*ret_vm = NULL;
	for (size_t i = 0; r == 0 && !*ret_vm && i < vbds->array.n_items; i++) {
		struct value *vbd CLEANUP_VALUE = NULL;
		r = object_get_record(
			pool, "VBD", value_string(vbds->array.items[i], ""), &vbd, fault);
		if (r < 0)
			return r;
		const char *of = value_find_string(vbd, "VM", REF_NULL);
		if (value_find_bool(vbd, "currently_attached", false) &&
			strcmp(value_find_string(vbd, "type", ""), "Disk") == 0 &&
			strcmp(value_find_string(vbd, "mode", ""), "RW") == 0 &&
			(!vm || strcmp(of, vm) == 0))
			*ret_vm = xstrdup(of);
	}
	return r;
}

int copies_find_guest(
	struct pool_db *pool, const struct copies *copies, char **ret_guest, struct fault *fault)
{
	char *state CLEANUP_FREE = NULL;
	char *guest CLEANUP_FREE = NULL;
	int r = 0;

	if (strcmp(copies->operation, "snapshot") == 0 && !*copies->vm) {
		r = find_writer(pool, copies_vdi(copies, 0), NULL, &guest, fault);
	} else if (strcmp(copies->operation, "snapshot") == 0) {
		r = object_get_string(pool, "VM", copies->vm, "power_state", &state, fault);
		if (r == 0 && strcmp(state, "Halted") != 0)
			guest = xstrdup(copies->vm);
	}
	if (r == 0)
		*ret_guest = guest ? TAKE_PTR(guest) : xstrdup(REF_NULL);
	return r;
}

bool copies_guest_writes(const struct copies *copies, size_t i)
{
	return copies->disks && copies->disks[i].node.name;
}

bool copies_guest_has_ended(const struct copies *copies)
{
	return copies->resident && !guest_is_alive(resident_guest(copies->resident));
}

bool copies_guest_has_ended_by(const struct copies *copies, int error)
{
	bool is_lost = error == -ECONNRESET || error == -ENOTCONN || error == -ECONNREFUSED;

	if (!copies->resident || !is_lost)
		return copies_guest_has_ended(copies);
	struct guest_watch *watch CLEANUP_GUEST_WATCH =
		guest_watch_new(resident_guest(copies->resident));
	uint64_t deadline = clock_deadline(END_USEC);
	int r = 1;
	while (!copies_guest_has_ended(copies) && r > 0) {
		struct pollfd fd = {.fd = guest_watch_fd(watch), .events = POLLIN};
		char *name CLEANUP_FREE = NULL;
		struct value *data CLEANUP_VALUE = NULL;
		uint64_t usec;
		r = cancel_poll(NULL, &fd, 1, deadline);
		if (r > 0)
			guest_watch_take(watch, &name, &data, &usec);
	}
	return copies_guest_has_ended(copies);
}

/* --- Beginning ----------------------------------------------------------------------------------
 */

static char *job_new(const struct copies *copies)
{
	return xasprintf("cpy-%s", copies->uuid);
}

static int find_disk(struct copies *copies, size_t i, struct fault *fault)
{
	struct copies_disk *disk = &copies->disks[i];
	char *writer CLEANUP_FREE = NULL;
	int r = find_writer(copies->params->storage->pool, copies_vdi(copies, i), copies->guest,
		&writer, fault);

	if (r < 0 || !writer)
		return r;
	r = guest_node_find(
		resident_guest(copies->resident), copies->files[i].from.path, &disk->node, fault);
	if (r == 0 && !disk->node.is_raw)
		r = storage_copy_plan_image(&copies->files[i], fault);
	disk->number = copies->n_tracked++;
	return r;
}

static int start_tracking(struct copies *copies, struct fault *fault)
{
	struct dirty_disk *disks CLEANUP_FREE = xcalloc(copies->n_files + 1, sizeof(*disks));
	char *job CLEANUP_FREE = job_new(copies);

	for (size_t i = 0; i < copies->n_files; i++) {
		const struct storage_move *file = &copies->files[i];
		if (copies_guest_writes(copies, i))
			disks[copies->disks[i].number] = (struct dirty_disk){
				.node = copies->disks[i].node.name,
				.size_bytes =
					file->disk_bytes ? file->disk_bytes : file->file_bytes,
			};
	}
	copies->dirty = dirty_new(&(struct dirty_params){
		.guest = resident_guest(copies->resident),
		.job = job,
		.disks = disks,
		.n_disks = copies->n_tracked,
	});
	return dirty_start(copies->dirty, fault);
}

int copies_guest_begin(struct copies *copies, struct fault *fault)
{
	int r = 0;

	if (ref_is_null(copies->guest))
		return 0;
	copies->resident = guests_hold(copies->params->guests, copies->guest);
	if (!copies->resident)
		return fault_set(fault, -ESRCH, "VM_BAD_POWER_STATE", copies->guest, "running",
			"halted", NULL);
	copies->disks = xcalloc(copies->n_files + 1, sizeof(*copies->disks));
	for (size_t i = 0; r == 0 && i < copies->n_files; i++)
		r = find_disk(copies, i, fault);
	return r < 0 ? r : start_tracking(copies, fault);
}

/* An image that is not raw is read as the guest sees it, through its own QEMU: what is in the file
 * is behind what QEMU holds in memory. */
static int open_image(
	struct copies *copies, size_t i, struct file_copy_params *params, struct fault *fault)
{
	struct copies_disk *disk = &copies->disks[i];
	struct endpoint_spec source = {.kind = ENDPOINT_NBD};
	struct endpoint_spec target = {.kind = ENDPOINT_NBD};
	const struct served_image_params image = {
		.owner = copies->uuid, .path = params->target, .writable = true};
	int r = served_image_open(
		copies->params, &image, params->cancel, &target, &disk->target, fault);

	if (r == 0)
		r = image_export_open(resident_guest(copies->resident), copies->uuid, &disk->node,
			&disk->source, fault);
	if (r < 0)
		return r;
	source.socket_path = image_export_socket(disk->source);
	source.export_name = image_export_name(disk->source);
	params->size_bytes = copies->files[i].disk_bytes;
	params->source_export = &source;
	params->target_export = &target;
	return file_copy_open(params, &disk->copy, fault);
}

int copies_guest_open(
	struct copies *copies, size_t i, struct file_copy_params *params, struct fault *fault)
{
	struct copies_disk *disk = &copies->disks[i];

	params->direct = disk->node.direct;
	return disk->node.is_raw ? file_copy_open(params, &disk->copy, fault)
				 : open_image(copies, i, params, fault);
}

/* --- Rounds -------------------------------------------------------------------------------------
 */

/* Also what was frozen when the guest had to go on too early. */
static int copy_written(struct copies *copies, struct fault *fault)
{
	int r = dirty_check(copies->dirty, fault);

	if (r == 0)
		r = dirty_freeze(copies->dirty, fault);
	for (size_t i = 0; r == 0 && i < copies->n_files; i++) {
		struct extent *extents CLEANUP_FREE = NULL;
		size_t n = 0;
		if (!copies_guest_writes(copies, i))
			continue;
		r = dirty_list(copies->dirty, copies->disks[i].number, &extents, &n, fault);
		if (r == 0)
			r = file_copy_extents(copies->disks[i].copy, extents, n, false, fault);
	}
	return r < 0 ? r : dirty_acknowledge(copies->dirty, fault);
}

static int count_left(struct copies *copies, uint64_t *ret_left, struct fault *fault)
{
	uint64_t *bytes CLEANUP_FREE = xcalloc(copies->n_tracked + 1, sizeof(*bytes));
	int r = dirty_count(copies->dirty, bytes, fault);

	*ret_left = 0;
	for (size_t i = 0; i < copies->n_tracked; i++)
		*ret_left += bytes[i];
	return r;
}

static int follow(struct copies *copies, struct fault *fault)
{
	uint64_t before = UINT64_MAX;
	uint64_t left = 0;

	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		int r = copy_written(copies, fault);
		if (r == 0)
			r = count_left(copies, &left, fault);
		if (r < 0 || left <= FEW_BYTES || (left <= LAST_BYTES && left >= before / 2))
			return r;
		before = left;
	}
	return fault_text(fault, -EBUSY,
		"The guest writes to its disks faster than they can be copied: %" PRIu64
		" bytes were left after %d rounds. Take the snapshot when it writes less, or with "
		"a higher [migration] bandwidth",
		left, MAX_ROUNDS);
}

/* --- The end of the copy ------------------------------------------------------------------------
 */

static int write_rest(struct copies *copies, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < copies->n_files; i++) {
		struct copies_disk *disk = &copies->disks[i];
		if (copies_guest_writes(copies, i))
			r = file_copy_extents(disk->copy, disk->last, disk->n_last, false, fault);
	}
	return r;
}

int copies_guest_finish(struct copies *copies, struct fault *fault)
{
	int r = -ETIMEDOUT;

	if (!copies->n_tracked)
		return 0;
	for (unsigned i = 0; r == -ETIMEDOUT && i < MAX_STOPS; i++) {
		fault_clear(fault);
		r = follow(copies, fault);
		if (r == 0)
			r = copies_pause(copies, fault);
	}
	return r < 0 ? r : write_rest(copies, fault);
}

void copies_guest_close(struct copies *copies)
{
	for (size_t i = 0; copies->disks && i < copies->n_files; i++) {
		struct copies_disk *disk = &copies->disks[i];
		disk->copy = file_copy_close(disk->copy);
		disk->source = image_export_close(disk->source);
		disk->target = served_image_close(disk->target);
	}
}

/* --- Its end ------------------------------------------------------------------------------------
 */

int copies_guest_settle(const struct copies *copies, struct fault *fault)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;
	struct dirty *dirty CLEANUP_DIRTY = NULL;
	char *job CLEANUP_FREE = job_new(copies);
	/* Which disks they are does not matter when tracking ends. */
	const struct dirty_disk any = {.node = "", .size_bytes = 0};

	if (!ref_is_null(copies->guest))
		resident = guests_hold(copies->params->guests, copies->guest);
	if (!resident)
		return 0;
	struct guest *guest = resident_guest(resident);
	int r = copies->stops ? guest_let_run(guest, fault) : 0;
	if (r == 0)
		r = image_export_forget(guest, copies->uuid, fault);
	if (r == 0) {
		dirty = dirty_new(&(struct dirty_params){
			.guest = guest, .job = job, .disks = &any, .n_disks = 1});
		r = dirty_stop(dirty, fault);
	}
	if (r == 0 || guest_is_alive(guest))
		return r;
	fault_clear(fault);
	return 0;
}

void copies_guest_clear(struct copies *copies)
{
	copies_guest_close(copies);
	for (size_t i = 0; copies->disks && i < copies->n_files; i++) {
		guest_node_clear(&copies->disks[i].node);
		free(copies->disks[i].last);
	}
	free(copies->disks);
	/* One that could not be let run is its watchdog's. */
	if (copies->stops)
		watchdog_abandon(copies->watchdog);
	else
		watchdog_stop(copies->watchdog);
	dirty_free(copies->dirty);
	guests_release(copies->resident);
}
