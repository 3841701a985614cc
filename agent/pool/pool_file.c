/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/pool_file.h"

#include "base/alloc.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define PIECE ((size_t)1 << 20)

void pool_file_remove(const char *path)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char *file CLEANUP_FREE = xasprintf("%s%s", path, suffixes[i]);
		unlink(file);
	}
}

int pool_file_put(const char *fresh, const char *path, struct fault *fault)
{
	pool_file_remove(path);
	if (rename(fresh, path) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot store %s", path);
	}
	int r = io_sync_parent(path);
	return r < 0 ? fault_errno(fault, r, "cannot store %s", path) : 0;
}

static int copy_bytes(int in, int out)
{
	char *piece CLEANUP_FREE = xcalloc(PIECE, 1);

	for (;;) {
		ssize_t n = read(in, piece, PIECE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int r = io_write_full(out, piece, (size_t)n);
		if (r < 0)
			return r;
	}
}

int pool_file_copy(const char *from, const char *to, struct fault *fault)
{
	pool_file_remove(to);
	int in CLEANUP_CLOSE = open(from, O_RDONLY | O_CLOEXEC);
	if (in < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot open %s", from);
	}
	int out CLEANUP_CLOSE = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r = out < 0 ? -errno : copy_bytes(in, out);
	return r < 0 ? fault_errno(fault, r, "cannot copy %s to %s", from, to) : 0;
}
