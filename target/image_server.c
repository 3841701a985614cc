/* SPDX-License-Identifier: Apache-2.0 */
#include "target/image_server.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/run.h"
#include "target/image.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT_NAME "disk"
#define SOCKET_FILE "nbd"
#define PID_FILE    "pid"
#define START_USEC  (20 * USEC_PER_SEC)

struct image_server {
	char *folder;
	char *socket;
	struct child *child;
};

const char *image_server_socket(const struct image_server *server)
{
	return server->socket;
}

const char *image_server_export(const struct image_server *server)
{
	(void)server;
	return EXPORT_NAME;
}

int image_server_forget_folder(const char *folder)
{
	static const char *const names[] = {SOCKET_FILE, PID_FILE};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", folder, names[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			return -errno;
	}
	return rmdir(folder) < 0 && errno != ENOENT ? -errno : 0;
}

struct image_server *image_server_stop(struct image_server *server)
{
	if (!server)
		return NULL;
	run_free(server->child);
	int r = image_server_forget_folder(server->folder);
	if (r < 0)
		log_warn("image.leftover", "dir=%s error=\"%s\"", server->folder, strerror(-r));
	free(server->socket);
	free(server->folder);
	free(server);
	return NULL;
}

/* As JSON, so that nothing in the path is syntax; "backing" is said, so that what the image says
 * about it is not even looked at. */
static char *describe_image(const char *path, bool read_only)
{
	struct value *image CLEANUP_VALUE = value_new_struct();
	struct value *file = value_new_struct();
	enum image_format format = image_format_of(path);
	struct buf text CLEANUP_BUF = BUF_INIT;

	value_set_string(file, "driver", "file");
	value_set_string(file, "filename", path);
	value_set_bool(file, "read-only", read_only);
	value_set_string(image, "driver", image_format_name(format));
	value_set_bool(image, "read-only", read_only);
	if (format == IMAGE_QCOW2)
		value_set(image, "backing", value_new_nil());
	value_set(image, "file", file);
	buf_append_string(&text, "json:");
	json_encode(image, &text);
	return buf_take_string(&text);
}

static int start_process(
	struct image_server *server, const struct image_server_params *params, struct fault *fault)
{
	char *socket CLEANUP_FREE = xasprintf("--socket=%s", server->socket);
	char *pid CLEANUP_FREE = xasprintf("--pid-file=%s/" PID_FILE, server->folder);
	char *image CLEANUP_FREE = describe_image(params->image, !params->writable);
	/* It stays when a client goes, and any number may come: the copy has several. */
	const char *const argv[] = {params->program, "--persistent", "--shared=0", socket, pid,
		"--export-name=" EXPORT_NAME, image, params->writable ? NULL : "--read-only", NULL};
	const struct run_path paths[] = {
		{.path = params->folder, .writable = true},
		{.path = params->image, .writable = params->writable},
	};
	const struct run_params run = {
		.argv = argv,
		.paths = paths,
		.n_paths = ARRAY_SIZE(paths),
		.deny_connect = true,
		.log_id = "image.server",
	};

	return run_start(&run, &server->child, fault);
}

/* The pid file is written when the socket listens. */
static bool has_pid(const struct image_server *server)
{
	char *path CLEANUP_FREE = xasprintf("%s/" PID_FILE, server->folder);
	struct stat st;

	return stat(path, &st) == 0 && st.st_size > 0;
}

static int await_pid(struct image_server *server, int watch_fd, const char *image,
	const struct cancel *cancel, struct fault *fault)
{
	uint64_t deadline = clock_deadline(START_USEC);
	char events[4096];

	while (!has_pid(server)) {
		struct pollfd fds[] = {
			{.fd = watch_fd, .events = POLLIN},
			{.fd = run_fd(server->child), .events = POLLIN},
		};
		int r = cancel_poll(cancel, fds, ARRAY_SIZE(fds), deadline);
		if (r == 0)
			return fault_text(fault, -ETIMEDOUT,
				"image %s: its server did not answer within %d s", image,
				(int)(START_USEC / USEC_PER_SEC));
		if (r < 0)
			return fault_errno(fault, r, "image %s: starting its server", image);
		if (!run_is_alive(server->child))
			return fault_text(fault, -EIO,
				"image %s: its server (qemu-nbd) ended at once: the image is in "
				"use or damaged; what it said is in the log (image.server)",
				image);
		if (fds[0].revents && read(watch_fd, events, sizeof(events)) < 0)
			return fault_errno(fault, -errno, "image %s: starting its server", image);
	}
	return 0;
}

static int make_folder(const struct image_server_params *params, struct fault *fault)
{
	struct sockaddr_un address;

	if (strlen(params->folder) + strlen("/" SOCKET_FILE) >= sizeof(address.sun_path))
		return fault_text(fault, -ENAMETOOLONG,
			"image server: the folder %s is too long for a socket in it",
			params->folder);
	if (mkdir(params->folder, 0700) < 0)
		return fault_errno(fault, -errno, "image server: folder %s", params->folder);
	return 0;
}

int image_server_start(const struct image_server_params *params, const struct cancel *cancel,
	struct image_server **ret_server, struct fault *fault)
{
	int watch_fd CLEANUP_CLOSE = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int r = make_folder(params, fault);

	if (r < 0)
		return r;
	struct image_server *server CLEANUP_IMAGE_SERVER = xcalloc(1, sizeof(*server));
	server->folder = xstrdup(params->folder);
	server->socket = xasprintf("%s/" SOCKET_FILE, params->folder);
	if (watch_fd < 0 || inotify_add_watch(watch_fd, params->folder, IN_CREATE | IN_MODIFY) < 0)
		return fault_errno(fault, -errno, "image server: watch of %s", params->folder);
	r = start_process(server, params, fault);
	if (r == 0)
		r = await_pid(server, watch_fd, params->image, cancel, fault);
	if (r < 0)
		return r;
	*ret_server = TAKE_PTR(server);
	return 0;
}
