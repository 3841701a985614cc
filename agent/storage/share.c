/* SPDX-License-Identifier: Apache-2.0 */
/* A directory that several hosts reach: the mark that tells whose it is, and the holds that tell
 * the other hosts which files one of them is working on.
 *
 *	.ferry-sr                        the mark: the SR's uuid
 *	.ferry-hold.<host>.<location>    a hold: how many bytes its file may yet take
 *
 * A mark that is made or removed stands in the journal ("sr-mark"); the rule for it is: it stays if
 * and only if the SR that it names is in this pool, and shared. */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/uuid.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK_KIND      "sr-mark"
#define MARK_NAME      STORAGE_OWN_PREFIX "sr"
#define MARK_MAX_BYTES 256
#define HOLD_PREFIX    STORAGE_OWN_PREFIX "hold."
#define HOLD_MAX_BYTES 64
#define UUID_CHARS     36

/* --- Marks --------------------------------------------------------------------------------------
 */

static char *mark_path(const char *dir)
{
	return xasprintf("%s/" MARK_NAME, dir);
}

/* "" for a mark that holds nothing, or nothing readable; NULL: there is none. */
static int read_mark(const char *dir, char **ret_uuid)
{
	char *path CLEANUP_FREE = mark_path(dir);
	struct buf content CLEANUP_BUF = BUF_INIT;
	int r = io_read_file(path, MARK_MAX_BYTES, &content);

	*ret_uuid = NULL;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	char *text CLEANUP_FREE = buf_take_string(&content);
	*ret_uuid = xstrndup(text, strcspn(text, "\n"));
	return 0;
}

static int fault_unreadable(const char *dir, int error, struct fault *fault)
{
	return sr_fault(fault, error, SR_FAILURE_UNAVAILABLE, "the mark %s/" MARK_NAME ": %s", dir,
		strerror(-error));
}

int mark_check(const char *dir, const char *uuid, struct fault *fault)
{
	char *found CLEANUP_FREE = NULL;
	int r = read_mark(dir, &found);

	if (r < 0)
		return fault_unreadable(dir, r, fault);
	if (!found)
		return sr_fault(fault, -ENODEV, SR_FAILURE_UNAVAILABLE,
			"the directory \"%s\" is not that of the shared SR %s: its mark (" MARK_NAME
			") was expected, and there is none; look at the location, and whether "
			"its file system is mounted",
			dir, uuid);
	if (strcmp(found, uuid) != 0)
		return sr_fault(fault, -ENODEV, SR_FAILURE_UNAVAILABLE,
			"the directory \"%s\" is not that of the shared SR %s: its mark (" MARK_NAME
			") says %s",
			dir, uuid, *found ? found : "nothing");
	return 0;
}

int mark_check_foreign(const char *dir, const char *uuid, struct fault *fault)
{
	char *found CLEANUP_FREE = NULL;
	int r = read_mark(dir, &found);

	if (r < 0)
		return fault_unreadable(dir, r, fault);
	if (!found || strcmp(found, uuid) == 0)
		return 0;
	return sr_fault(fault, -EEXIST, SR_FAILURE_IN_USE,
		"the directory \"%s\" is that of the shared SR %s, maybe of another pool: its mark "
		"(" MARK_NAME ") says so; remove the mark if that SR is nobody's any more",
		dir, found);
}

/* Not over a mark that is there: two hosts may try at once. */
static int write_mark(const char *dir, const char *uuid, struct fault *fault)
{
	char *path CLEANUP_FREE = mark_path(dir);
	char *text CLEANUP_FREE = xasprintf("%s\n", uuid);
	int r = mark_check_foreign(dir, uuid, fault);

	if (r < 0)
		return r;
	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST)
		return mark_check(dir, uuid, fault);
	r = fd < 0 ? -errno : io_write_full(fd, text, strlen(text));
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0)
		r = io_sync_parent(path);
	return r < 0 ? fault_unreadable(dir, r, fault) : 0;
}

int mark_record(
	const struct storage *storage, const char *dir, const char *uuid, struct fault *fault)
{
	char *path CLEANUP_FREE = mark_path(dir);
	struct value *detail CLEANUP_VALUE = value_new_struct();

	value_set_string(detail, "uuid", uuid);
	return resource_record(storage->agent, "", MARK_KIND, path, detail, NULL, fault);
}

int mark_make(const struct storage *storage, const char *dir, const char *uuid, struct fault *fault)
{
	int r = mark_check_foreign(dir, uuid, fault);

	if (r == 0)
		r = mark_record(storage, dir, uuid, fault);
	return r < 0 ? r : write_mark(dir, uuid, fault);
}

/* 1: a shared SR of this pool has that uuid; 0: none has; negative: that cannot be told now. */
static int is_shared_sr(const struct storage *storage, const char *uuid)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	char *sr CLEANUP_FREE = NULL;
	bool is_shared = false;
	int r = object_get_by_uuid(storage->pool, "SR", uuid, &sr, &why);

	if (r == 0)
		r = object_get_bool(storage->pool, "SR", sr, "shared", &is_shared, &why);
	if (r < 0)
		return fault_is(&why, "UUID_INVALID") || fault_is(&why, "HANDLE_INVALID") ? 0 : r;
	return is_shared;
}

/* Cut short by a crash it is the beginning of what it was to be. */
static int settle_mark(const struct storage *storage, const struct resource_row *row)
{
	const char *uuid = value_find_string(row->detail, "uuid", "");
	char *dir CLEANUP_FREE = xstrndup(row->name, (size_t)(strrchr(row->name, '/') - row->name));
	char *found CLEANUP_FREE = NULL;
	int r = read_mark(dir, &found);

	if (r < 0)
		return r;
	bool is_ours = found && strncmp(found, uuid, strlen(found)) == 0;
	r = is_shared_sr(storage, uuid);
	if (r < 0)
		return r;
	if (is_ours && r == 0 && unlink(row->name) < 0 && errno != ENOENT)
		return -errno;
	return resource_forget(storage->agent, row->id, NULL);
}

void sr_recover_marks(const struct storage *storage)
{
	mark_settle(storage, NULL);
}

void mark_settle(const struct storage *storage, const char *uuid)
{
	struct resource_row *rows = NULL;
	size_t n = 0;

	if (resource_list(storage->agent, "", MARK_KIND, &rows, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		bool is_meant =
			!uuid || strcmp(value_find_string(rows[i].detail, "uuid", ""), uuid) == 0;
		int r = is_meant ? settle_mark(storage, &rows[i]) : 0;
		if (r < 0)
			log_warn("STORAGE_MARK_KEPT", "path=%s error=%s", rows[i].name,
				strerror(-r));
		resource_row_clear(&rows[i]);
	}
	free(rows);
}

/* --- Holds --------------------------------------------------------------------------------------
 */

static const char *host_id(const struct storage *storage)
{
	const char *colon = strrchr(storage->host_ref, ':');

	return colon ? colon + 1 : storage->host_ref;
}

static char *hold_path(const struct storage *storage, const char *path)
{
	const char *name = strrchr(path, '/') + 1;

	return xasprintf(
		"%.*s" HOLD_PREFIX "%s.%s", (int)(name - path), path, host_id(storage), name);
}

int hold_place(
	const struct storage *storage, const char *path, uint64_t need_bytes, struct fault *fault)
{
	char *hold CLEANUP_FREE = hold_path(storage, path);
	char *text CLEANUP_FREE = xasprintf("%" PRIu64 "\n", need_bytes);
	int fd CLEANUP_CLOSE = open(hold, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int r = fd < 0 ? -errno : io_write_full(fd, text, strlen(text));

	if (r == 0)
		return 0;
	fault_errno(fault, r, "cannot tell the other hosts of the SR by the file %s", hold);
	return sr_fault_from_disk(fault, r, SR_FAILURE_UNAVAILABLE);
}

void hold_lift(const struct storage *storage, const char *path)
{
	char *hold CLEANUP_FREE = hold_path(storage, path);

	if (unlink(hold) < 0 && errno != ENOENT && errno != ENOTDIR)
		log_warn("STORAGE_HOLD_KEPT", "path=%s error=%s", hold, strerror(errno));
}

static int64_t read_need(const char *dir, const char *name)
{
	char *path CLEANUP_FREE = xasprintf("%s/%s", dir, name);
	struct buf content CLEANUP_BUF = BUF_INIT;
	int64_t bytes = 0;

	if (io_read_file(path, HOLD_MAX_BYTES, &content) < 0)
		return 0;
	char *text CLEANUP_FREE = buf_take_string(&content);
	text[strcspn(text, "\n")] = '\0';
	return parse_int64(text, &bytes) < 0 ? 0 : bytes;
}

static void add_hold(struct value *holds, const char *dir, const char *name)
{
	const char *host = name + strlen(HOLD_PREFIX);
	struct value *hold = value_new_struct();

	value_set(hold, "host", value_new_format("OpaqueRef:%.*s", UUID_CHARS, host));
	value_set_int(hold, "need_bytes", read_need(dir, name));
	value_set(holds, host + UUID_CHARS + 1, hold);
}

static void close_directory(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

int storage_list_holds(const char *path, struct value **ret_holds, struct fault *fault)
{
	struct value *holds CLEANUP_VALUE = value_new_struct();
	DIR *dir CLEANUP(close_directory) = opendir(path);
	const struct dirent *entry;

	if (!dir) {
		int error = -errno;
		return sr_fault(fault, error, SR_FAILURE_SCAN, "cannot list %s: %s", path,
			strerror(-error));
	}
	while ((entry = readdir(dir)))
		if (strncmp(entry->d_name, HOLD_PREFIX, strlen(HOLD_PREFIX)) == 0 &&
			strlen(entry->d_name) > strlen(HOLD_PREFIX) + UUID_CHARS + 1)
			add_hold(holds, path, entry->d_name);
	*ret_holds = TAKE_PTR(holds);
	return 0;
}
