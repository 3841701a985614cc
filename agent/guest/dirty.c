/* SPDX-License-Identifier: Apache-2.0 */
/* The order of commands is the one that was proven safe with QEMU 7.2: an export through a null-co
 * node of the main loop, never of the guest's own node (its client's end aborts a QEMU whose node
 * is in an iothread); the export gone, which an event tells, before anything is done to the bitmap
 * that it held; the NBD server left alone. */
#include "agent/guest/dirty_internal.h"

#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* A node's name has at most 31 characters: FNV-1a of the job's. */
static char *proxy_name(const char *job)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *job; job++)
		hash = (hash ^ (unsigned char)*job) * UINT64_C(0x100000001b3);
	return xasprintf("ferry.%016" PRIx64, hash);
}

struct dirty *dirty_new(const struct dirty_params *params)
{
	struct dirty *dirty = xcalloc(1, sizeof(*dirty));

	dirty->guest = params->guest;
	dirty->job = xstrdup(params->job);
	dirty->proxy = proxy_name(params->job);
	dirty->n_disks = params->n_disks;
	dirty->disks = xcalloc(params->n_disks + 1, sizeof(*dirty->disks));
	for (size_t i = 0; i < params->n_disks; i++) {
		dirty->disks[i].node = xstrdup(params->disks[i].node);
		dirty->disks[i].size_bytes = params->disks[i].size_bytes;
	}
	if (dirty->n_disks)
		dirty->watch = guest_watch_new(dirty->guest);
	return dirty;
}

struct dirty *dirty_free(struct dirty *dirty)
{
	if (!dirty)
		return NULL;
	guest_watch_free(dirty->watch);
	for (size_t i = 0; i < dirty->n_disks; i++)
		free(dirty->disks[i].node);
	free(dirty->disks);
	free(dirty->proxy);
	free(dirty->job);
	free(dirty);
	return NULL;
}

/* --- What is there ------------------------------------------------------------------------------
 */

static int look(struct dirty *dirty, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;
	int r = dirty_delete_exports(dirty, fault);

	if (r == 0)
		r = dirty_query_nodes(dirty, &nodes, fault);
	if (r < 0)
		return r;
	dirty_view_read(dirty, nodes, &dirty->view);
	dirty->is_served = dirty->is_served && dirty->view.has_proxy;
	dirty->is_known = true;
	return 0;
}

static int stale(const struct dirty_view *view, struct fault *fault)
{
	return fault_text(fault, -ESTALE,
		"What the guest wrote since the copy began is no longer known: %s",
		view->state == DIRTY_LOST ? view->lost : "its QEMU has no dirty bitmaps");
}

/* What is there, and that it is tracked. */
static int need_tracking(struct dirty *dirty, struct fault *fault)
{
	int r = dirty->is_known ? 0 : look(dirty, fault);

	if (r == 0 && dirty->view.state != DIRTY_RECORDING && dirty->view.state != DIRTY_FROZEN)
		r = stale(&dirty->view, fault);
	return r;
}

int dirty_probe(struct dirty *dirty, enum dirty_state *ret_state, struct fault *fault)
{
	int r = dirty->n_disks ? look(dirty, fault) : 0;

	if (r == 0)
		*ret_state = dirty->view.state;
	return r;
}

/* Runs a transaction. QEMU refuses it when bitmaps were changed by others. */
static int transact(struct dirty *dirty, struct value *actions, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct fault refused CLEANUP_FAULT = FAULT_INIT;
	enum dirty_state before = dirty->view.state;

	value_set(arguments, "actions", actions);
	int r = dirty_change(dirty, "transaction", arguments, &refused);
	if (r == -EREMOTEIO && look(dirty, NULL) == 0 && dirty->view.state != before)
		return stale(&dirty->view, fault);
	fault_move(fault, &refused);
	return r;
}

static void add_action(struct value *actions, const char *type, struct value *data)
{
	struct value *action = value_new_struct();

	value_set_string(action, "type", type);
	value_set(action, "data", data);
	value_append(actions, action);
}

static void add_new_bitmap(
	struct value *actions, struct dirty *dirty, size_t disk, uint64_t generation)
{
	struct value *data = dirty_bitmap_arguments(dirty, disk, generation);

	value_set_int(data, "granularity", DIRTY_GRANULARITY);
	value_set_bool(data, "persistent", false);
	add_action(actions, "block-dirty-bitmap-add", data);
}

static int begin(struct dirty *dirty, struct fault *fault)
{
	struct value *actions = value_new_array();

	for (size_t i = 0; i < dirty->n_disks; i++)
		add_new_bitmap(actions, dirty, i, 0);
	int r = transact(dirty, actions, fault);
	if (r == 0) {
		dirty->view.state = DIRTY_RECORDING;
		dirty->view.generation = 0;
	}
	return r;
}

int dirty_start(struct dirty *dirty, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;

	if (!dirty->n_disks)
		return 0;
	int r = look(dirty, fault);
	if (r == 0 && dirty->view.state == DIRTY_LOST)
		r = stale(&dirty->view, fault);
	if (r == 0)
		r = dirty_query_nodes(dirty, &nodes, fault);
	if (r == 0)
		r = dirty_check_devices(dirty, nodes, fault);
	if (r == 0)
		r = dirty_serve(dirty, fault);
	if (r == 0 && dirty->view.state == DIRTY_NONE)
		r = begin(dirty, fault);
	return r;
}

/* --- A generation -------------------------------------------------------------------------------
 */

int dirty_freeze(struct dirty *dirty, struct fault *fault)
{
	if (!dirty->n_disks)
		return 0;
	int r = need_tracking(dirty, fault);
	if (r < 0 || dirty->view.state == DIRTY_FROZEN)
		return r;
	struct value *actions = value_new_array();
	uint64_t generation = dirty->view.generation;
	/* First all that begin, then all that end: a write is in one of them at least. */
	for (size_t i = 0; i < dirty->n_disks; i++)
		add_new_bitmap(actions, dirty, i, generation + 1);
	for (size_t i = 0; i < dirty->n_disks; i++)
		add_action(actions, "block-dirty-bitmap-disable",
			dirty_bitmap_arguments(dirty, i, generation));
	r = transact(dirty, actions, fault);
	if (r == 0) {
		dirty->view.state = DIRTY_FROZEN;
		dirty->view.generation = generation + 1;
	}
	return r;
}

bool dirty_is_frozen(const struct dirty *dirty)
{
	return dirty->is_known && dirty->view.state == DIRTY_FROZEN;
}

/* The connection broke: is it that QEMU is gone? Its monitor knows. */
static int explain_end(struct dirty *dirty, int error, struct fault *fault)
{
	struct fault monitor CLEANUP_FAULT = FAULT_INIT;

	dirty->is_known = false;
	if (error != -ENOTCONN)
		return error;
	int r = guest_command(dirty->guest, "query-status", NULL, NULL, NULL, &monitor);
	if (r != -ECONNRESET)
		return error;
	fault_move(fault, &monitor);
	return r;
}

int dirty_read(struct dirty *dirty, size_t disk, dirty_take take, void *arg, struct fault *fault)
{
	int r = need_tracking(dirty, fault);

	if (r == 0 && dirty->view.state != DIRTY_FROZEN)
		r = fault_text(fault, -EINVAL, "No generation of dirty bitmaps is frozen");
	if (r == 0)
		r = dirty_serve(dirty, fault);
	if (r == 0)
		r = dirty_export_frozen(dirty, fault);
	if (r < 0)
		return r;
	uint64_t generation = dirty->view.generation - 1;
	char *socket CLEANUP_FREE = guest_file(guest_run_dir(dirty->guest), GUEST_NBD);
	char *export CLEANUP_FREE = dirty_export_name(dirty, generation);
	char *bitmap CLEANUP_FREE = dirty_bitmap_name(dirty, disk, generation);
	const struct dirty_source source = {
		.socket = socket,
		.export = export,
		.bitmap = bitmap,
		.size_bytes = dirty->disks[disk].size_bytes,
	};
	r = dirty_nbd_read(&source, take, arg, fault);
	return r < 0 ? explain_end(dirty, r, fault) : 0;
}

struct list {
	struct extent *extents;
	size_t n;
};

static int add_to_list(void *arg, const struct extent *extents, size_t n, struct fault *fault)
{
	struct list *list = arg;

	(void)fault;
	list->extents = xrealloc(list->extents, list->n + n + 1, sizeof(*list->extents));
	memcpy(list->extents + list->n, extents, n * sizeof(*extents));
	list->n += n;
	return 0;
}

int dirty_list(struct dirty *dirty, size_t disk, struct extent **ret_extents, size_t *ret_n,
	struct fault *fault)
{
	struct list list = {0};
	int r = dirty_read(dirty, disk, add_to_list, &list, fault);

	if (r < 0) {
		free(list.extents);
		return r;
	}
	*ret_extents = list.extents;
	*ret_n = list.n;
	return 0;
}

int dirty_acknowledge(struct dirty *dirty, struct fault *fault)
{
	if (!dirty->n_disks)
		return 0;
	int r = need_tracking(dirty, fault);
	if (r < 0 || dirty->view.state == DIRTY_RECORDING)
		return r;
	r = dirty_end_export(dirty, fault);
	if (r < 0)
		return r;
	struct value *actions = value_new_array();
	for (size_t i = 0; i < dirty->n_disks; i++)
		add_action(actions, "block-dirty-bitmap-remove",
			dirty_bitmap_arguments(dirty, i, dirty->view.generation - 1));
	r = transact(dirty, actions, fault);
	if (r == 0)
		dirty->view.state = DIRTY_RECORDING;
	return r;
}

/* --- Questions ----------------------------------------------------------------------------------
 */

int dirty_count(struct dirty *dirty, uint64_t *ret_bytes, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;

	if (!dirty->n_disks)
		return 0;
	int r = need_tracking(dirty, fault);
	if (r == 0)
		r = dirty_query_nodes(dirty, &nodes, fault);
	for (size_t i = 0; r == 0 && i < dirty->n_disks; i++) {
		const struct value *bitmap =
			dirty_find_bitmap(dirty, nodes, i, dirty->view.generation);
		int64_t count = value_find_int(bitmap, "count", -1);
		if (count < 0)
			return fault_text(fault, -ESTALE,
				"What the guest wrote to disk %s is no longer known: its dirty "
				"bitmap is gone",
				dirty->disks[i].node);
		ret_bytes[i] = (uint64_t)count;
	}
	return r;
}

int dirty_check(struct dirty *dirty, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;
	struct dirty_view view;

	if (!dirty->n_disks)
		return 0;
	int r = need_tracking(dirty, fault);
	if (r == 0)
		r = dirty_query_nodes(dirty, &nodes, fault);
	if (r < 0)
		return r;
	dirty_view_read(dirty, nodes, &view);
	if (view.state != dirty->view.state || view.generation != dirty->view.generation) {
		bool is_lost = view.state == DIRTY_LOST;
		return fault_text(fault, -ESTALE,
			"What the guest wrote since the copy began is no longer known: %s",
			is_lost ? view.lost : "somebody else changed its dirty bitmaps");
	}
	return dirty_check_devices(dirty, nodes, fault);
}

/* --- End ----------------------------------------------------------------------------------------
 */

/* Goes on after a failure; the first is the caller's. */
static void keep_first(int *r, int now, struct fault *fault, struct fault *why)
{
	if (now < 0 && *r == 0) {
		*r = now;
		fault_move(fault, why);
	}
	fault_clear(why);
}

/* Also those on a node that is no longer a root. */
static int remove_bitmaps(struct dirty *dirty, const struct value *node, struct fault *fault)
{
	const struct value *bitmaps = value_find(node, "dirty-bitmaps");
	int r = 0;

	if (!bitmaps || bitmaps->type != VALUE_ARRAY)
		return 0;
	for (size_t i = 0; i < bitmaps->array.n_items; i++) {
		const char *name = value_find_string(bitmaps->array.items[i], "name", "");
		struct value *arguments CLEANUP_VALUE = value_new_struct();
		struct fault why CLEANUP_FAULT = FAULT_INIT;
		if (!dirty_is_ours(dirty, name))
			continue;
		value_set_string(arguments, "node", value_find_string(node, "node-name", ""));
		value_set_string(arguments, "name", name);
		keep_first(&r, dirty_change(dirty, "block-dirty-bitmap-remove", arguments, &why),
			fault, &why);
	}
	return r;
}

static int remove_proxy(struct dirty *dirty, const struct value *nodes, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	if (!dirty_find_node(nodes, dirty->proxy))
		return 0;
	value_set_string(arguments, "node-name", dirty->proxy);
	return dirty_change(dirty, "blockdev-del", arguments, fault);
}

static int remove_all(struct dirty *dirty, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = 0;

	keep_first(&r, dirty_delete_exports(dirty, &why), fault, &why);
	if (r == 0)
		keep_first(&r, dirty_query_nodes(dirty, &nodes, &why), fault, &why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < nodes->array.n_items; i++)
		keep_first(&r, remove_bitmaps(dirty, nodes->array.items[i], &why), fault, &why);
	keep_first(&r, remove_proxy(dirty, nodes, &why), fault, &why);
	return r;
}

int dirty_stop(struct dirty *dirty, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;

	if (!dirty->n_disks)
		return 0;
	dirty->is_known = false;
	dirty->is_served = false;
	int r = remove_all(dirty, &why);
	/* Bitmaps die with their QEMU; one whose monitor broke ends too (guest.h). */
	if (r == 0 || r == -ECONNRESET || r == -ESRCH)
		return 0;
	fault_move(fault, &why);
	return r;
}
