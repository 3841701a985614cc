/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/file.h"

#include "base/alloc.h"
#include "base/io.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "xmlrpc/file_client.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What can be left out of a file is blocks of it. */
#define BLOCK_BYTES 4096

struct moving {
	struct file *file;
	struct progress progress;
};

static bool is_standard(const char *name)
{
	return strcmp(name, "-") == 0;
}

int file_open(struct file *file, const char *name, struct fault *fault)
{
	struct stat st;

	file->name = name;
	file->is_source = true;
	file->fd = is_standard(name) ? dup(STDIN_FILENO) : open(name, O_RDONLY | O_CLOEXEC);
	if (file->fd < 0 || fstat(file->fd, &st) < 0)
		return cli_fail(fault, -errno, "%s: %s", name, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return cli_fail(fault, -EISDIR, "%s is a folder", name);
	file->is_regular = S_ISREG(st.st_mode);
	return 0;
}

int file_create(struct file *file, const char *name, struct fault *fault)
{
	file->name = name;
	if (is_standard(name) && isatty(STDOUT_FILENO))
		return cli_usage(fault, "a disk is not shown on a terminal: name a file, or send "
					"standard output elsewhere");
	file->is_made = file->is_regular = !is_standard(name);
	file->fd = is_standard(name) ? dup(STDOUT_FILENO)
				     : open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file->fd >= 0)
		return 0;
	int error = errno;
	file->is_made = false;
	return cli_fail(fault, -error, "%s: %s", name,
		error == EEXIST ? "it is there already, and is not overwritten" : strerror(error));
}

void file_clear(struct file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->is_made)
		unlink(file->name);
	file->fd = -1;
}

int file_keep(struct file *file, struct fault *fault)
{
	if (!file->is_regular)
		return 0;
	/* It may end in a hole. */
	if (ftruncate(file->fd, (off_t)file->n_moved) < 0 || fsync(file->fd) < 0)
		return cli_fail(fault, -errno, "%s: %s", file->name, strerror(errno));
	file->is_made = false;
	return 0;
}

static bool is_zero(const char *data, size_t length)
{
	return data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}

static int write_some(struct file *file, const char *data, size_t length)
{
	int r = 0;

	for (size_t at = 0; r == 0 && at < length;) {
		size_t n = MIN(length - at, BLOCK_BYTES - (file->n_moved + at) % BLOCK_BYTES);
		if (file->is_regular && is_zero(data + at, n))
			r = lseek(file->fd, (off_t)n, SEEK_CUR) < 0 ? -errno : 0;
		else
			r = io_write_full(file->fd, data + at, n);
		at += n;
	}
	file->n_moved += length;
	return r;
}

static ssize_t move(void *arg, char *data, size_t max)
{
	struct file *file = ((struct moving *)arg)->file;
	ssize_t n;

	if (!file->is_source) {
		int r = write_some(file, data, max);
		return r < 0 ? r : (ssize_t)max;
	}
	do
		n = read(file->fd, data, max);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void show(void *arg, uint64_t done, uint64_t total)
{
	struct moving *moving = arg;
	bool is_known = total != FILE_LENGTH_UNKNOWN && total;

	if (!moving->progress.enabled)
		return;
	struct value *record CLEANUP_VALUE = value_new_struct();
	struct value *config = value_new_struct();
	if (is_known) {
		value_set_int(config, "ferry:bytes_done", (int64_t)done);
		value_set_int(config, "ferry:bytes_total", (int64_t)total);
	}
	value_set(
		record, "progress", value_new_double(is_known ? (double)done / (double)total : 0));
	value_set(record, "other_config", config);
	progress_draw(&moving->progress, record);
}

int file_move(struct context *context, const char *path, struct value *queries, struct file *file,
	struct value **ret_answer, struct fault *fault)
{
	struct moving moving = {.file = file, .progress = {.enabled = context->progress}};
	struct file_transfer transfer = {
		.path = path,
		.queries = queries,
		.is_upload = file->is_source,
		.length = FILE_LENGTH_UNKNOWN,
		.move = move,
		.progress = show,
		.arg = &moving,
		.ret_answer = ret_answer,
	};
	struct stat st;

	session_server(context->session, &transfer.server);
	value_set_string(queries, "session_id", session_ref(context->session));
	if (file->is_source && file->is_regular && fstat(file->fd, &st) == 0)
		transfer.length = (uint64_t)st.st_size;
	int r = file_transfer(&transfer, interrupt_first(), fault);
	progress_clear(&moving.progress);
	return r == -ECANCELED ? cli_fail(fault, r, "interrupted") : r;
}
