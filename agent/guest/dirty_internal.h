/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of dirty.h share: the names of a job in QEMU, what QEMU has of them, and the
 * reading of one bitmap. */
#ifndef FERRY_AGENT_GUEST_DIRTY_INTERNAL_H
#define FERRY_AGENT_GUEST_DIRTY_INTERNAL_H

#include "agent/guest/dirty.h"

#include <stdbool.h>

/* What QEMU has of a job. */
struct dirty_view {
	enum dirty_state state;
	uint64_t generation; /* the one that records; unless NONE or LOST */
	bool has_proxy;
	char lost[256]; /* why it is LOST */
};

struct dirty_disk_copy {
	char *node;
	uint64_t size_bytes;
};

struct dirty {
	struct guest *guest;
	struct guest_watch *watch; /* for BLOCK_EXPORT_DELETED */
	char *job;
	char *proxy; /* node that the bitmaps are exported with */
	struct dirty_disk_copy *disks;
	size_t n_disks;
	bool is_known;    /* view is what QEMU has, as no command's end is in doubt */
	bool is_served;   /* the NBD server and the proxy are there */
	bool is_exported; /* the frozen generation is */
	struct dirty_view view;
};

/* --- Names (dirty_view.c); the caller frees them ------------------------------------------------
 */

/* Unique among all bitmaps of the guest: the context by which NBD offers one holds nothing else. */
char *dirty_bitmap_name(const struct dirty *dirty, size_t disk, uint64_t generation);
char *dirty_export_name(const struct dirty *dirty, uint64_t generation);
/* Whether a bitmap or an export of that name is the job's. */
bool dirty_is_ours(const struct dirty *dirty, const char *name);

/* --- Looks into QEMU (dirty_view.c) -------------------------------------------------------------
 */

/* query-named-block-nodes. */
int dirty_query_nodes(struct dirty *dirty, struct value **ret_nodes, struct fault *fault);
const struct value *dirty_find_node(const struct value *nodes, const char *name);
/* NULL: none. */
const struct value *dirty_find_bitmap(
	const struct dirty *dirty, const struct value *nodes, size_t disk, uint64_t generation);
void dirty_view_read(
	const struct dirty *dirty, const struct value *nodes, struct dirty_view *ret_view);
/* The devices' root nodes, block jobs and sizes: -ESTALE. */
int dirty_check_devices(struct dirty *dirty, const struct value *nodes, struct fault *fault);

/* --- Offering (dirty_export.c) ------------------------------------------------------------------
 */

/* A command that changes something: when its end is in doubt, so is what QEMU has. */
int dirty_change(struct dirty *dirty, const char *command, const struct value *arguments,
	struct fault *fault);
/* Node and name; the caller frees it. */
struct value *dirty_bitmap_arguments(struct dirty *dirty, size_t disk, uint64_t generation);
/* The NBD server and the proxy are there. -EBUSY: the server is somebody else's. */
int dirty_serve(struct dirty *dirty, struct fault *fault);
/* The frozen bitmaps of all disks at once, until dirty_end_export, which waits for the end. */
int dirty_export_frozen(struct dirty *dirty, struct fault *fault);
int dirty_end_export(struct dirty *dirty, struct fault *fault);
/* All exports of the job; an earlier agent may have left one. */
int dirty_delete_exports(struct dirty *dirty, struct fault *fault);

/* --- Reading (dirty_nbd.c) ----------------------------------------------------------------------
 */

struct dirty_source {
	const char *socket;
	const char *export;
	const char *bitmap;
	uint64_t size_bytes;
};

/* -ETIMEDOUT; -ENOTCONN: the server went away; -EPROTO: it says what makes no sense; what `take`
 * returned. Blocks up to 5 s at a time without an answer, and 60 s in all. */
int dirty_nbd_read(
	const struct dirty_source *source, dirty_take take, void *arg, struct fault *fault);

#endif
