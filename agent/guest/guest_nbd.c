/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest_nbd.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

static bool is_listening(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	/* EAGAIN: its queue is full. */
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN;
}

int guest_nbd_ensure(struct guest *guest, char **ret_socket, struct fault *fault)
{
	char *path CLEANUP_FREE = guest_file(guest_run_dir(guest), GUEST_NBD);
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *place = value_new_struct();
	struct value *address = value_new_struct();
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	value_set_string(place, "path", path);
	value_set_string(address, "type", "unix");
	value_set(address, "data", place);
	value_set(arguments, "addr", address);
	/* QEMU refuses when it has one; nobody can ask it where that one listens. */
	int r = guest_command(guest, "nbd-server-start", arguments, NULL, NULL, &cause);
	if (r == -EREMOTEIO && !is_listening(path))
		return fault_text(fault, -EBUSY,
			"the guest's QEMU has no NBD server at %s and starts none: %s", path,
			cause.n_params ? cause.params[0] : "");
	if (r < 0 && r != -EREMOTEIO) {
		if (fault)
			fault_move(fault, &cause);
		return r;
	}
	*ret_socket = TAKE_PTR(path);
	return 0;
}
