/* SPDX-License-Identifier: Apache-2.0 */
/* How a frozen generation is offered: the NBD server, the proxy node, and the export, whose end is
 * waited for. */
#include "agent/guest/dirty_internal.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define DELETE_USEC (5 * USEC_PER_SEC)
#define LOOK_USEC   USEC_PER_SEC

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

static void drop_events(struct dirty *dirty)
{
	char *name;
	struct value *data;
	uint64_t usec;

	while (guest_watch_take(dirty->watch, &name, &data, &usec)) {
		free(name);
		value_free(data);
	}
}

/* Whether it is among the events that came. */
static bool take_deleted(struct dirty *dirty, const char *id)
{
	char *name;
	struct value *data;
	uint64_t usec;
	bool is_there = false;

	while (!is_there && guest_watch_take(dirty->watch, &name, &data, &usec)) {
		is_there = strcmp(name, "BLOCK_EXPORT_DELETED") == 0 &&
			   strcmp(value_find_string(data, "id", ""), id) == 0;
		free(name);
		value_free(data);
	}
	return is_there;
}

static int query_exports(struct dirty *dirty, struct value **ret_exports, struct fault *fault)
{
	int r = guest_command(dirty->guest, "query-block-exports", NULL, NULL, ret_exports, fault);

	if (r < 0 || (*ret_exports)->type == VALUE_ARRAY)
		return r;
	*ret_exports = value_free(*ret_exports);
	return fault_text(fault, -EBADMSG, "query-block-exports: QEMU's answer is no list");
}

/* 1: it is there, or still ending. */
static int has_export(struct dirty *dirty, const char *id, struct fault *fault)
{
	struct value *exports CLEANUP_VALUE = NULL;
	int r = query_exports(dirty, &exports, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < exports->array.n_items; i++)
		if (strcmp(value_find_string(exports->array.items[i], "id", ""), id) == 0)
			return 1;
	return 0;
}

/* By the event, with a look once a second. */
static int await_deleted(struct dirty *dirty, const char *id, struct fault *fault)
{
	struct pollfd fd = {.fd = guest_watch_fd(dirty->watch), .events = POLLIN};
	uint64_t deadline = clock_deadline(DELETE_USEC);

	while (clock_now_usec() < deadline) {
		if (take_deleted(dirty, id))
			return 0;
		int r = cancel_poll(NULL, &fd, 1, MIN(deadline, clock_deadline(LOOK_USEC)));
		if (r > 0)
			continue;
		if (r == 0)
			r = has_export(dirty, id, fault);
		if (r <= 0)
			return r;
	}
	return fault_text(fault, -ETIMEDOUT, "QEMU does not end the NBD export %s within 5 s", id);
}

/* "hard": QEMU may not yet have seen that the client has gone. */
static int delete_export(struct dirty *dirty, const char *id, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct fault refused CLEANUP_FAULT = FAULT_INIT;

	value_set_string(arguments, "id", id);
	value_set_string(arguments, "mode", "hard");
	drop_events(dirty);
	int r = dirty_change(dirty, "block-export-del", arguments, &refused);
	if (r == -EREMOTEIO) {
		/* It is gone, or is ending. */
		r = has_export(dirty, id, fault);
		return r > 0 ? await_deleted(dirty, id, fault) : r;
	}
	if (r < 0)
		fault_move(fault, &refused);
	return r < 0 ? r : await_deleted(dirty, id, fault);
}

/* All of the job; an earlier agent may have left one. */
int dirty_delete_exports(struct dirty *dirty, struct fault *fault)
{
	struct value *exports CLEANUP_VALUE = NULL;
	int r = query_exports(dirty, &exports, fault);

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
	char *name CLEANUP_FREE = dirty_export_name(dirty, generation);
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *bitmaps = value_new_array();

	if (dirty->is_exported)
		return 0;
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

/* Whether the socket is this QEMU's: there is one NBD server in a QEMU, and no command that tells
 * where it listens. */
static int prove_server(struct dirty *dirty, const char *path, struct fault *fault)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer = {0};
	socklen_t length = sizeof(peer);
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return fault_errno(fault, -errno, "socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return fault_text(
			fault, -ENAMETOOLONG, "The path %s is too long for a socket", path);
	strcpy(address.sun_path, path);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "%s", path);
	}
	return peer.pid == guest_pid(dirty->guest)
		       ? 0
		       : fault_text(fault, -EBUSY, "%s is process %d's", path, (int)peer.pid);
}

static int start_server(struct dirty *dirty, struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(guest_run_dir(dirty->guest), GUEST_NBD);
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *address = value_new_struct();
	struct fault refused CLEANUP_FAULT = FAULT_INIT;
	struct fault foreign CLEANUP_FAULT = FAULT_INIT;

	value_set_string(address, "type", "unix");
	value_set(address, "data", value_set_string(value_new_struct(), "path", path));
	value_set(arguments, "addr", address);
	int r = dirty_change(dirty, "nbd-server-start", arguments, &refused);
	if (r == -EREMOTEIO && prove_server(dirty, path, &foreign) == 0)
		return 0;
	if (r == -EREMOTEIO)
		return fault_text(fault, -EBUSY,
			"The guest's QEMU offers no NBD server for its dirty bitmaps (%s), and one "
			"that is there is not ours (%s). Stop it (nbd-server-stop) once nobody is "
			"connected to it",
			refused.params[0], foreign.params[0]);
	fault_move(fault, &refused);
	return r;
}

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
	int r = start_server(dirty, fault);
	if (r == 0 && !dirty->view.has_proxy)
		r = add_proxy(dirty, fault);
	if (r == 0)
		dirty->is_served = true;
	return r;
}
