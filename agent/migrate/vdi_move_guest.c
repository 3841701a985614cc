/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/vdi_move_internal.h"

#include "agent/guest/node_file.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The guest is stopped for the copy of so much at most: tens of milliseconds. */
#define LAST_BYTES (UINT64_C(4) << 20)
/* Rounds within which so little must be left; a round of a guest that writes half as fast as the
 * copy leaves half of what it began with. */
#define MAX_ROUNDS 40

struct dirty *vdi_move_guest_tracking(const struct vdi_move *move, struct guest *guest)
{
	char *job CLEANUP_FREE = xasprintf("vdi-%s", move->uuid);
	const struct dirty_disk disk = {.node = move->node, .size_bytes = move->disk_bytes};

	return dirty_new(
		&(struct dirty_params){.guest = guest, .job = job, .disks = &disk, .n_disks = 1});
}

static int find_node(struct vdi_move *move, struct fault *fault)
{
	int r = guest_node_find(
		resident_guest(move->resident), move->files.from.path, &move->guest_node, fault);

	if (r < 0)
		return r;
	free(move->node);
	move->node = xstrdup(move->guest_node.name);
	return vdi_move_store(move, fault);
}

int vdi_move_guest_begin(struct vdi_move *move, struct fault *fault)
{
	char *file CLEANUP_FREE = NULL;

	move->resident = guests_hold(move->params->guests, move->vm);
	if (!move->resident)
		return fault_set(fault, -EBUSY, "VDI_IN_USE", move->vdi, VDI_MOVE_VDI_MARK, NULL);
	int r = find_node(move, fault);
	if (r < 0)
		return r;
	/* First, as it is what may not be possible. */
	r = node_file_add(resident_guest(move->resident), &move->guest_node, move->files.to.path,
		&file, fault);
	if (r < 0)
		return r;
	move->dirty = vdi_move_guest_tracking(move, resident_guest(move->resident));
	return dirty_start(move->dirty, fault);
}

/* --- Rounds -------------------------------------------------------------------------------------
 */

static int copy_written(struct vdi_move *move, bool is_final, struct fault *fault)
{
	struct extent *extents CLEANUP_FREE = NULL;
	size_t n = 0;
	int r = dirty_check(move->dirty, fault);

	if (r == 0)
		r = dirty_freeze(move->dirty, fault);
	if (r == 0)
		r = dirty_list(move->dirty, 0, &extents, &n, fault);
	if (r == 0)
		r = file_copy_extents(move->copy, extents, n, is_final, fault);
	return r < 0 ? r : dirty_acknowledge(move->dirty, fault);
}

int vdi_move_guest_follow(struct vdi_move *move, struct fault *fault)
{
	uint64_t left = 0;

	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		int r = copy_written(move, false, fault);
		if (r == 0)
			r = dirty_count(move->dirty, &left, fault);
		if (r < 0 || left <= LAST_BYTES)
			return r;
	}
	return fault_text(fault, -EBUSY,
		"The guest writes to the disk faster than it can be copied: %" PRIu64
		" bytes were left after %d rounds. Move it when the guest writes less",
		left, MAX_ROUNDS);
}

int vdi_move_guest_stop(struct vdi_move *move, struct fault *fault)
{
	move->stops = true;
	move->stopped_usec = clock_now_usec();
	int r = vdi_move_store(move, fault);
	if (r == 0)
		r = guest_pause(resident_guest(move->resident), fault);
	return r < 0 ? r : copy_written(move, true, fault);
}

int vdi_move_guest_switch(struct vdi_move *move, struct fault *fault)
{
	struct guest *guest = resident_guest(move->resident);
	char *file CLEANUP_FREE = NULL;
	int r = node_file_add(guest, &move->guest_node, move->files.to.path, &file, fault);

	if (r == 0)
		r = node_file_use(guest, &move->guest_node, file, fault);
	if (r < 0)
		return r;
	/* Settling tries it again. */
	if (guest_unpause(guest, NULL) == 0)
		log_info("VDI-MOVE-SWITCHED", "vdi=%s pause_usec=%" PRIu64, move->vdi,
			clock_now_usec() - move->stopped_usec);
	return 0;
}

/* --- Its end ------------------------------------------------------------------------------------
 */

/* While the guest is stopped, both files are the same. */
static int put_on(struct guest *guest, const char *from, const char *to, struct fault *fault)
{
	struct guest_node node CLEANUP_GUEST_NODE = {0};
	char *file CLEANUP_FREE = NULL;
	bool is_running = true;
	int r = guest_is_running(guest, &is_running, fault);

	if (r < 0)
		return r;
	if (is_running)
		return fault_text(fault, -ESTALE,
			"the guest was let run on %s by somebody else, while its disk is %s now: "
			"what it writes is not on its disk. Shut the VM down",
			from, to);
	r = guest_node_find(guest, from, &node, fault);
	if (r == 0)
		r = node_file_add(guest, &node, to, &file, fault);
	return r < 0 ? r : node_file_use(guest, &node, file, fault);
}

int vdi_move_guest_settle(
	struct vdi_move *move, struct guest *guest, const char *path, struct fault *fault)
{
	struct dirty *dirty CLEANUP_DIRTY = NULL;
	char *used CLEANUP_FREE = NULL;
	int r = node_file_in_use(guest, move->node, &used, fault);

	if (r == 0 && strcmp(used, path) != 0)
		r = put_on(guest, used, path, fault);
	if (r == 0 && move->stops)
		r = guest_let_run(guest, fault);
	if (r < 0)
		return r;
	dirty = vdi_move_guest_tracking(move, guest);
	r = dirty_stop(dirty, fault);
	return r < 0 ? r : node_file_drop_others(guest, move->node, fault);
}
