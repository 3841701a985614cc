/* SPDX-License-Identifier: Apache-2.0 */
/* A file system in use: files of records come, are replaced by rename(2), and go. */
#include "tests/guest/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_FILES        64
#define MAX_BLOCKS     16
#define BLOCK(slot, i) ((uint64_t)(slot)*256 + (i)) /* number of a record in a file */

/* Of the one job of this kind. */
static struct file {
	uint64_t sequence; /* of its first record; 0: there is no file */
	unsigned n;
} files[N_FILES];

static void path_of(char *path, size_t size, const struct job *job, unsigned slot)
{
	snprintf(path, size, "/mnt/%s/f%02u", job->device, slot);
}

static bool write_file(struct job *job, const char *path, unsigned slot, unsigned n)
{
	uint64_t sequence = job->sequence + 1;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return false;
	for (unsigned i = 0; i < n; i++)
		record_fill(&job->buffer[i], job->disk, BLOCK(slot, i), sequence + i);
	bool good = write(fd, job->buffer, n * RECORD_BYTES) == (ssize_t)(n * RECORD_BYTES) &&
		    fdatasync(fd) == 0;
	close(fd);
	return good;
}

static void replace(struct job *job, unsigned slot)
{
	char path[64], fresh[80];
	unsigned n = 1 + (unsigned)(job_random(job) % MAX_BLOCKS);
	uint64_t begun = now_usec();

	path_of(path, sizeof(path), job, slot);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	if (!write_file(job, fresh, slot, n) || rename(fresh, path) < 0) {
		job_error(job, "write of file", slot);
		return;
	}
	job_took(job, begun);
	files[slot] = (struct file){job->sequence + 1, n};
	job->sequence += n;
	job->writes++;
}

static void drop(struct job *job, unsigned slot)
{
	char path[64];

	path_of(path, sizeof(path), job, slot);
	if (unlink(path) < 0)
		job_error(job, "unlink of file", slot);
	files[slot].sequence = 0;
	job->discards++;
}

static void check(struct job *job, unsigned slot)
{
	static struct record wanted;
	const struct file *file = &files[slot];
	char path[64];

	path_of(path, sizeof(path), job, slot);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && !file->sequence)
		return;
	memset(job->buffer, 0, BUFFER_BYTES);
	ssize_t done = fd < 0 ? -1 : read(fd, job->buffer, BUFFER_BYTES);
	if (fd >= 0)
		close(fd);
	if (done != (ssize_t)(file->n * RECORD_BYTES)) {
		job_error(job, "read of file", slot);
		return;
	}
	for (unsigned i = 0; i < file->n; i++) {
		record_fill(&wanted, job->disk, BLOCK(slot, i), file->sequence + i);
		if (memcmp(&wanted, &job->buffer[i], sizeof(wanted)) != 0)
			job_wrong(job, &job->buffer[i], BLOCK(slot, i), file->sequence + i);
	}
}

static void step(struct job *job)
{
	unsigned slot = (unsigned)(job_random(job) % N_FILES);

	if (files[slot].sequence && job_random(job) % 5 == 0)
		drop(job, slot);
	else
		replace(job, slot);
	check(job, (unsigned)(job_random(job) % N_FILES));
	job->reads++;
}

static int prepare(struct job *job)
{
	char device[32], folder[32];

	snprintf(device, sizeof(device), "/dev/%s", job->device);
	snprintf(folder, sizeof(folder), "/mnt/%s", job->device);
	if (mkdir(folder, 0755) < 0 || mount(device, folder, "ext4", 0, "discard") < 0)
		return -errno;
	return posix_memalign((void **)&job->buffer, RECORD_BYTES, BUFFER_BYTES) ? -ENOMEM : 0;
}

/* From the disk, not from what the kernel still has of it in memory. */
static void verify(struct job *job)
{
	sync();
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "3\n", 2) != 2)
		job_error(job, "drop_caches", 0);
	if (fd >= 0)
		close(fd);
	for (unsigned slot = 0; slot < N_FILES; slot++)
		check(job, slot);
	job->scanned += N_FILES;
}

/* The verifier on the host finds the same from the files alone. */
static void settle(struct job *job)
{
	uint64_t hash = N_FILES;

	sync();
	for (unsigned slot = 0; slot < N_FILES; slot++)
		hash = record_mix(hash,
			files[slot].sequence ? record_mix(files[slot].sequence, files[slot].n) : 0);
	job->hash = hash | 1;
}

static void end(struct job *job)
{
	char folder[32];

	snprintf(folder, sizeof(folder), "/mnt/%s", job->device);
	if (umount(folder) < 0)
		job_error(job, "umount", 0);
}

const struct job_kind ext4_kind = {"ext4", prepare, step, verify, settle, end};
