/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/dirty_internal.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* --- Names --------------------------------------------------------------------------------------
 * Parted by dots, which no job has: none of one job begins like one of another.
 */

static char *prefix_of(const struct dirty *dirty)
{
	return xasprintf("ferry.%s.", dirty->job);
}

char *dirty_bitmap_name(const struct dirty *dirty, size_t disk, uint64_t generation)
{
	return xasprintf("ferry.%s.d%zu.%" PRIu64, dirty->job, disk, generation);
}

char *dirty_export_name(const struct dirty *dirty, uint64_t generation)
{
	return xasprintf("ferry.%s.%" PRIu64, dirty->job, generation);
}

bool dirty_is_ours(const struct dirty *dirty, const char *name)
{
	char *prefix CLEANUP_FREE = prefix_of(dirty);

	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* --- Nodes and bitmaps --------------------------------------------------------------------------
 */

int dirty_query_nodes(struct dirty *dirty, struct value **ret_nodes, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_bool(arguments, "flat", true);
	int r = guest_command(
		dirty->guest, "query-named-block-nodes", arguments, NULL, ret_nodes, fault);
	if (r < 0)
		return r;
	if ((*ret_nodes)->type == VALUE_ARRAY)
		return 0;
	*ret_nodes = value_free(*ret_nodes);
	return fault_text(fault, -EBADMSG, "query-named-block-nodes: QEMU's answer is no list");
}

const struct value *dirty_find_node(const struct value *nodes, const char *name)
{
	for (size_t i = 0; i < nodes->array.n_items; i++)
		if (strcmp(value_find_string(nodes->array.items[i], "node-name", ""), name) == 0)
			return nodes->array.items[i];
	return NULL;
}

/* A list of a node's or a device's; NULL: it has none. */
static const struct value *find_list(const struct value *record, const char *name)
{
	const struct value *list = value_find(record, name);

	return list && list->type == VALUE_ARRAY ? list : NULL;
}

const struct value *dirty_find_bitmap(
	const struct dirty *dirty, const struct value *nodes, size_t disk, uint64_t generation)
{
	char *name CLEANUP_FREE = dirty_bitmap_name(dirty, disk, generation);
	const struct value *node = dirty_find_node(nodes, dirty->disks[disk].node);
	const struct value *bitmaps = find_list(node, "dirty-bitmaps");

	for (size_t i = 0; bitmaps && i < bitmaps->array.n_items; i++)
		if (strcmp(value_find_string(bitmaps->array.items[i], "name", ""), name) == 0)
			return bitmaps->array.items[i];
	return NULL;
}

/* --- The state ----------------------------------------------------------------------------------
 */

/* What one disk has. */
struct found {
	unsigned n_recording;
	unsigned n_frozen;
	uint64_t recording; /* generations */
	uint64_t frozen;
};

static void lose(struct dirty_view *view, const char *node, const char *what)
{
	if (view->state == DIRTY_LOST)
		return;
	view->state = DIRTY_LOST;
	snprintf(view->lost, sizeof(view->lost), "disk %s: %s", node, what);
}

/* Returns why it cannot be trusted; NULL: it can. */
static const char *count_bitmap(
	const struct value *bitmap, uint64_t generation, struct found *found)
{
	if (value_find_bool(bitmap, "inconsistent", false))
		return "a bitmap is inconsistent";
	if (value_find_int(bitmap, "granularity", 0) != DIRTY_GRANULARITY)
		return "a bitmap has another granularity";
	if (value_find_bool(bitmap, "recording", false)) {
		found->n_recording++;
		found->recording = generation;
	} else {
		found->n_frozen++;
		found->frozen = generation;
	}
	return NULL;
}

static const char *count_bitmaps(
	const struct dirty *dirty, const struct value *nodes, size_t disk, struct found *ret_found)
{
	const struct value *node = dirty_find_node(nodes, dirty->disks[disk].node);
	const struct value *bitmaps = find_list(node, "dirty-bitmaps");
	char *prefix CLEANUP_FREE = xasprintf("ferry.%s.d%zu.", dirty->job, disk);
	const char *wrong = NULL;

	*ret_found = (struct found){0};
	if (!node)
		return "QEMU has no such node";
	for (size_t i = 0; bitmaps && i < bitmaps->array.n_items && !wrong; i++) {
		const char *name = value_find_string(bitmaps->array.items[i], "name", "");
		uint64_t generation;
		if (strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		if (parse_uint64(name + strlen(prefix), &generation) < 0)
			return "a bitmap's name has no generation";
		wrong = count_bitmap(bitmaps->array.items[i], generation, ret_found);
	}
	return wrong;
}

static enum dirty_state judge(const struct found *found)
{
	if (!found->n_recording && !found->n_frozen)
		return DIRTY_NONE;
	if (found->n_recording == 1 && !found->n_frozen)
		return DIRTY_RECORDING;
	if (found->n_recording == 1 && found->n_frozen == 1 &&
		found->frozen + 1 == found->recording)
		return DIRTY_FROZEN;
	return DIRTY_LOST;
}

void dirty_view_read(
	const struct dirty *dirty, const struct value *nodes, struct dirty_view *ret_view)
{
	*ret_view = (struct dirty_view){.has_proxy = dirty_find_node(nodes, dirty->proxy) != NULL};
	for (size_t i = 0; i < dirty->n_disks; i++) {
		const char *node = dirty->disks[i].node;
		struct found found;
		const char *wrong = count_bitmaps(dirty, nodes, i, &found);
		enum dirty_state state = wrong ? DIRTY_LOST : judge(&found);

		if (wrong)
			lose(ret_view, node, wrong);
		else if (state == DIRTY_LOST)
			lose(ret_view, node, "some of its bitmaps are missing or do not record");
		else if (i == 0)
			*ret_view = (struct dirty_view){.has_proxy = ret_view->has_proxy,
				.state = state,
				.generation = found.recording};
		else if (state != ret_view->state || found.recording != ret_view->generation)
			lose(ret_view, node, "its bitmaps are not those of the other disks");
	}
}

/* --- Devices ------------------------------------------------------------------------------------
 */

static int stale(const char *node, const char *what, struct fault *fault)
{
	return fault_text(fault, -ESTALE,
		"What the guest writes to disk %s can no longer be tracked: %s", node, what);
}

static bool is_root(const struct value *devices, const char *node)
{
	for (size_t i = 0; i < devices->array.n_items; i++) {
		const struct value *inserted = value_find(devices->array.items[i], "inserted");
		if (strcmp(value_find_string(inserted, "node-name", ""), node) == 0)
			return true;
	}
	return false;
}

static int query_list(
	struct dirty *dirty, const char *command, struct value **ret_list, struct fault *fault)
{
	int r = guest_command(dirty->guest, command, NULL, NULL, ret_list, fault);

	if (r < 0 || (*ret_list)->type == VALUE_ARRAY)
		return r;
	*ret_list = value_free(*ret_list);
	return fault_text(fault, -EBADMSG, "%s: QEMU's answer is no list", command);
}

static int check_jobs(struct dirty *dirty, struct fault *fault)
{
	struct value *jobs CLEANUP_VALUE = NULL;
	int r = query_list(dirty, "query-block-jobs", &jobs, fault);

	if (r < 0 || jobs->array.n_items == 0)
		return r;
	const struct value *job = jobs->array.items[0];
	return fault_text(fault, -ESTALE,
		"What the guest writes can no longer be tracked: the block job \"%s\" (%s) is in "
		"its QEMU",
		value_find_string(job, "device", ""), value_find_string(job, "type", "unknown"));
}

static int check_device(const struct dirty_disk_copy *disk, const struct value *devices,
	const struct value *nodes, struct fault *fault)
{
	const struct value *node = dirty_find_node(nodes, disk->node);
	int64_t size = value_find_int(value_find(node, "image"), "virtual-size", -1);

	if (!node)
		return stale(disk->node, "QEMU has no such node", fault);
	if (!is_root(devices, disk->node))
		return stale(disk->node,
			"it is no longer the root node of a device (a snapshot was made?)", fault);
	if (size < 0 || (uint64_t)size != disk->size_bytes) {
		char *text CLEANUP_FREE =
			xasprintf("its size is %" PRId64 " and was %" PRIu64 " bytes", size,
				disk->size_bytes);
		return stale(disk->node, text, fault);
	}
	return 0;
}

int dirty_check_devices(struct dirty *dirty, const struct value *nodes, struct fault *fault)
{
	struct value *devices CLEANUP_VALUE = NULL;
	/* First: a job puts a node of its own above the disk's, and is the better reason. */
	int r = check_jobs(dirty, fault);

	if (r == 0)
		r = query_list(dirty, "query-block", &devices, fault);
	for (size_t i = 0; r == 0 && i < dirty->n_disks; i++)
		r = check_device(&dirty->disks[i], devices, nodes, fault);
	return r;
}
