/* SPDX-License-Identifier: Apache-2.0 */
/* How a frozen generation is offered: the NBD server, the proxy node, and the export, whose end is
 * waited for. */
#include "agent/guest/dirty_internal.h"

#include "agent/guest/guest_nbd.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* A command that changes something: when its end is in doubt, so is what QEMU has. */
int dirty_change(struct dirty *dirty, const char *command, const struct value *arguments,
	struct fault *fault)
{
	int r = guest_command(dirty->guest, command, arguments, NULL, NULL, fault);

	if (r < 0 && r != -EREMOTEIO)
		dirty->is_known = false;
	return r;
}

/* --- Exports ------------------------------------------------------------------------------------
 */

/* What QEMU has is in doubt after any failure of several commands. */
static int doubt(struct dirty *dirty, int r)
{
	if (r < 0)
		dirty->is_known = false;
	return r;
}

static int delete_export(struct dirty *dirty, const char *id, struct fault *fault)
{
	return doubt(dirty, guest_nbd_end_export(dirty->guest, dirty->watch, id, fault));
}

/* All of the job; an earlier agent may have left one. */
int dirty_delete_exports(struct dirty *dirty, struct fault *fault)
{
	struct value *exports CLEANUP_VALUE = NULL;
	int r = guest_nbd_query_exports(dirty->guest, &exports, fault);

	for (size_t i = 0; r == 0 && i < exports->array.n_items; i++) {
		const char *id = value_find_string(exports->array.items[i], "id", "");
		if (dirty_is_ours(dirty, id))
			r = delete_export(dirty, id, fault);
	}
	if (r == 0)
		dirty->is_exported = false;
	return r;
}

struct value *dirty_bitmap_arguments(struct dirty *dirty, size_t disk, uint64_t generation)
{
	struct value *arguments = value_new_struct();
	char *name CLEANUP_FREE = dirty_bitmap_name(dirty, disk, generation);

	value_set_string(arguments, "node", dirty->disks[disk].node);
	value_set_string(arguments, "name", name);
	return arguments;
}

/* The frozen bitmaps of all disks at once. */
int dirty_export_frozen(struct dirty *dirty, struct fault *fault)
{
	uint64_t generation = dirty->view.generation - 1;

	if (dirty->is_exported)
		return 0;
	char *name CLEANUP_FREE = dirty_export_name(dirty, generation);
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *bitmaps = value_new_array();
	value_set_string(arguments, "id", name);
	value_set_string(arguments, "type", "nbd");
	value_set_string(arguments, "node-name", dirty->proxy);
	value_set_string(arguments, "name", name);
	value_set_bool(arguments, "writable", false);
	value_set(arguments, "bitmaps", bitmaps);
	for (size_t i = 0; i < dirty->n_disks; i++)
		value_append(bitmaps, dirty_bitmap_arguments(dirty, i, generation));
	int r = dirty_change(dirty, "block-export-add", arguments, fault);
	if (r == 0)
		dirty->is_exported = true;
	return r;
}

int dirty_end_export(struct dirty *dirty, struct fault *fault)
{
	char *name CLEANUP_FREE = dirty_export_name(dirty, dirty->view.generation - 1);

	if (!dirty->is_exported)
		return 0;
	int r = delete_export(dirty, name, fault);
	if (r == 0)
		dirty->is_exported = false;
	return r;
}

/* --- The NBD server and the proxy ---------------------------------------------------------------
 */

static int add_proxy(struct dirty *dirty, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	uint64_t size = 0;

	for (size_t i = 0; i < dirty->n_disks; i++)
		size = MAX(size, dirty->disks[i].size_bytes);
	value_set_string(arguments, "driver", "null-co");
	value_set_string(arguments, "node-name", dirty->proxy);
	value_set_int(arguments, "size", (int64_t)size);
	value_set_bool(arguments, "read-zeroes", true);
	int r = dirty_change(dirty, "blockdev-add", arguments, fault);
	if (r == 0)
		dirty->view.has_proxy = true;
	return r;
}

int dirty_serve(struct dirty *dirty, struct fault *fault)
{
	if (dirty->is_served)
		return 0;
	int r = doubt(dirty, guest_nbd_ensure(dirty->guest, NULL, fault));
	if (r == 0 && !dirty->view.has_proxy)
		r = add_proxy(dirty, fault);
	if (r == 0)
		dirty->is_served = true;
	return r;
}
