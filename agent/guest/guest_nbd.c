/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest_nbd.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define DELETE_USEC (5 * USEC_PER_SEC)
#define LOOK_USEC   USEC_PER_SEC

/* --- The server ---------------------------------------------------------------------------------
 */

/* Whether the socket is this QEMU's: there is one NBD server in a QEMU, and no command that tells
 * where it listens. */
static int prove_server(struct guest *guest, const char *path, struct fault *fault)
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
	return peer.pid == guest_pid(guest)
		       ? 0
		       : fault_text(fault, -EBUSY, "%s is process %d's", path, (int)peer.pid);
}

static int start_server(struct guest *guest, const char *path, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *address = value_new_struct();

	value_set_string(address, "type", "unix");
	value_set(address, "data", value_set_string(value_new_struct(), "path", path));
	value_set(arguments, "addr", address);
	return guest_command(guest, "nbd-server-start", arguments, NULL, NULL, fault);
}

int guest_nbd_ensure(struct guest *guest, char **ret_socket, struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(guest_run_dir(guest), GUEST_NBD);
	struct fault refused CLEANUP_FAULT = FAULT_INIT;
	struct fault foreign CLEANUP_FAULT = FAULT_INIT;
	int r = start_server(guest, path, &refused);

	/* QEMU refuses when it has one. */
	if (r == -EREMOTEIO && prove_server(guest, path, &foreign) < 0)
		return fault_text(fault, -EBUSY,
			"The guest's QEMU offers no NBD server for its disks (%s), and one that is "
			"there is not ours (%s). Stop it (nbd-server-stop) once nobody is "
			"connected to it",
			refused.params[0], foreign.params[0]);
	if (r < 0 && r != -EREMOTEIO) {
		if (fault)
			fault_move(fault, &refused);
		return r;
	}
	if (ret_socket)
		*ret_socket = TAKE_PTR(path);
	return 0;
}

/* --- Exports ------------------------------------------------------------------------------------
 */

int guest_nbd_query_exports(struct guest *guest, struct value **ret_exports, struct fault *fault)
{
	int r = guest_command(guest, "query-block-exports", NULL, NULL, ret_exports, fault);

	if (r < 0 || (*ret_exports)->type == VALUE_ARRAY)
		return r;
	*ret_exports = value_free(*ret_exports);
	return fault_text(fault, -EBADMSG, "query-block-exports: QEMU's answer is no list");
}

static void drop_events(struct guest_watch *watch)
{
	char *name;
	struct value *data;
	uint64_t usec;

	while (guest_watch_take(watch, &name, &data, &usec)) {
		free(name);
		value_free(data);
	}
}

/* Whether it is among the events that came. */
static bool take_deleted(struct guest_watch *watch, const char *id)
{
	char *name;
	struct value *data;
	uint64_t usec;
	bool is_there = false;

	while (!is_there && guest_watch_take(watch, &name, &data, &usec)) {
		is_there = strcmp(name, "BLOCK_EXPORT_DELETED") == 0 &&
			   strcmp(value_find_string(data, "id", ""), id) == 0;
		free(name);
		value_free(data);
	}
	return is_there;
}

/* 1: it is there, or still ending. */
static int has_export(struct guest *guest, const char *id, struct fault *fault)
{
	struct value *exports CLEANUP_VALUE = NULL;
	int r = guest_nbd_query_exports(guest, &exports, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < exports->array.n_items; i++)
		if (strcmp(value_find_string(exports->array.items[i], "id", ""), id) == 0)
			return 1;
	return 0;
}

/* By the event, with a look once a second. */
static int await_deleted(
	struct guest *guest, struct guest_watch *watch, const char *id, struct fault *fault)
{
	struct pollfd fd = {.fd = guest_watch_fd(watch), .events = POLLIN};
	uint64_t deadline = clock_deadline(DELETE_USEC);

	while (clock_now_usec() < deadline) {
		if (take_deleted(watch, id))
			return 0;
		int r = cancel_poll(NULL, &fd, 1, MIN(deadline, clock_deadline(LOOK_USEC)));
		if (r > 0)
			continue;
		if (r == 0)
			r = has_export(guest, id, fault);
		if (r <= 0)
			return r;
	}
	return fault_text(fault, -ETIMEDOUT, "QEMU does not end the NBD export %s within 5 s", id);
}

int guest_nbd_end_export(
	struct guest *guest, struct guest_watch *watch, const char *id, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct fault refused CLEANUP_FAULT = FAULT_INIT;

	value_set_string(arguments, "id", id);
	/* QEMU may not yet have seen that the client has gone. */
	value_set_string(arguments, "mode", "hard");
	drop_events(watch);
	int r = guest_command(guest, "block-export-del", arguments, NULL, NULL, &refused);
	if (r == -EREMOTEIO) {
		/* It is gone, or is ending. */
		r = has_export(guest, id, fault);
		return r > 0 ? await_deleted(guest, watch, id, fault) : r;
	}
	if (r == 0)
		return await_deleted(guest, watch, id, fault);
	if (fault)
		fault_move(fault, &refused);
	return r;
}
