/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/guest/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Discards are whole clusters of qcow2, which ignores parts of one. */
#define CLUSTER (65536 / RECORD_BYTES)

static bool read_blocks(struct job *job, uint64_t block, size_t n)
{
	ssize_t done = pread(job->fd, job->buffer, n * RECORD_BYTES, (off_t)(block * RECORD_BYTES));

	if (done == (ssize_t)(n * RECORD_BYTES))
		return true;
	job_error(job, "read", block);
	return false;
}

static bool write_blocks(struct job *job, const void *data, uint64_t block, size_t n)
{
	uint64_t begun = now_usec();
	ssize_t done = pwrite(job->fd, data, n * RECORD_BYTES, (off_t)(block * RECORD_BYTES));

	job_took(job, begun);
	if (done == (ssize_t)(n * RECORD_BYTES))
		return true;
	job_error(job, "write", block);
	return false;
}

static void check_blocks(struct job *job, uint64_t block, size_t n)
{
	static _Thread_local struct record wanted;

	if (!read_blocks(job, block, n))
		return;
	for (size_t i = 0; i < n; i++) {
		uint32_t sequence = job->table[block + i];

		if (sequence == NOBODY_KNOWS)
			continue;
		memset(&wanted, 0, sizeof(wanted));
		if (sequence)
			record_fill(&wanted, job->disk, block + i, sequence);
		if (memcmp(&wanted, &job->buffer[i], sizeof(wanted)) != 0)
			job_wrong(job, &job->buffer[i], block + i, sequence);
	}
}

static void write_records(struct job *job, uint64_t block, size_t n)
{
	uint64_t sequence = job->sequence;

	for (size_t i = 0; i < n; i++)
		record_fill(&job->buffer[i], job->disk, block + i, sequence + 1 + i);
	bool written = write_blocks(job, job->buffer, block, n);
	for (size_t i = 0; i < n; i++)
		job->table[block + i] = written ? (uint32_t)(sequence + 1 + i) : NOBODY_KNOWS;
	job->sequence = sequence + n;
	job->writes++;
}

static void make_zeros(struct job *job, uint64_t block, size_t n, bool discard)
{
	uint64_t range[2] = {block * RECORD_BYTES, n * RECORD_BYTES};
	uint64_t begun = now_usec();
	int r = ioctl(job->fd, discard ? BLKDISCARD : BLKZEROOUT, range);

	job_took(job, begun);
	if (r < 0)
		job_error(job, discard ? "discard" : "zero", block);
	for (size_t i = 0; i < n; i++)
		job->table[block + i] = r < 0 ? NOBODY_KNOWS : 0;
	(*(discard ? &job->discards : &job->zeroes))++;
}

static void read_one_back(struct job *job)
{
	check_blocks(job, job_random(job) % job->n_region, 1);
	job->reads++;
}

/* --- Patterns -----------------------------------------------------------------------------------
 */

static size_t blocks_of(const struct job *job)
{
	return job->write_bytes / RECORD_BYTES;
}

static void step_seq(struct job *job)
{
	size_t n = blocks_of(job);

	if (job->cursor + n > job->n_region)
		job->cursor = 0;
	write_records(job, job->cursor, n);
	job->cursor += n;
	read_one_back(job);
}

static void step_random(struct job *job)
{
	size_t n = blocks_of(job);

	write_records(job, job_random(job) % (job->n_region / n) * n, n);
	read_one_back(job);
}

static void step_hot(struct job *job)
{
	size_t n = blocks_of(job);

	write_records(job, job->n_region / n / 2 * n, n);
	read_one_back(job);
}

static void step_mixed(struct job *job)
{
	uint64_t dice = job_random(job) % 10;

	if (dice == 0) {
		uint64_t cluster = job_random(job) % (job->n_region / CLUSTER);

		make_zeros(job, cluster * CLUSTER, CLUSTER, true);
	} else {
		size_t n = 1 + job_random(job) % CLUSTER;
		uint64_t block = job_random(job) % (job->n_region - n + 1);

		if (dice == 1)
			make_zeros(job, block, n, false);
		else
			write_records(job, block, n);
	}
	read_one_back(job);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static uint64_t trailer_block(struct job *job)
{
	uint64_t size = 0;

	return ioctl(job->fd, BLKGETSIZE64, &size) < 0 ? 0 : size / RECORD_BYTES - 1;
}

static bool write_trailer(struct job *job, uint64_t hash)
{
	struct trailer *trailer = (struct trailer *)job->buffer;

	memset(job->buffer, 0, RECORD_BYTES);
	*trailer = (struct trailer){.magic = TRAILER_MAGIC,
		.disk = job->disk,
		.n_blocks = job->n_blocks,
		.sequence = job->sequence,
		.hash = hash};
	return write_blocks(job, job->buffer, trailer_block(job), 1);
}

/* What an earlier run of the writer left goes away, so that every block begins as zeros. */
static int wipe(struct job *job, uint64_t size)
{
	uint64_t range[2] = {0, size};

	if (!read_blocks(job, trailer_block(job), 1))
		return -EIO;
	if (((struct trailer *)job->buffer)->magic != TRAILER_MAGIC)
		return 0;
	return ioctl(job->fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static void fill(struct job *job)
{
	size_t n = BUFFER_BYTES / RECORD_BYTES;
	uint64_t blocks = job->fill_bytes / RECORD_BYTES;

	for (uint64_t block = 0; block + n <= blocks && block + n <= job->n_region; block += n)
		write_records(job, block, n);
	job->writes = 0;
}

static int prepare(struct job *job)
{
	char path[32];
	uint64_t size = 0;

	snprintf(path, sizeof(path), "/dev/%s", job->device);
	job->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (job->fd < 0 || ioctl(job->fd, BLKGETSIZE64, &size) < 0)
		return -errno;
	job->n_blocks = record_data_blocks(size);
	job->n_region = job->region_bytes ? job->region_bytes / RECORD_BYTES : job->n_blocks;
	if (job->n_region > job->n_blocks || job->n_region < (uint64_t)2 * CLUSTER)
		return -ENOSPC;
	if (posix_memalign((void **)&job->buffer, RECORD_BYTES, BUFFER_BYTES) != 0 ||
		posix_memalign(
			(void **)&job->table, RECORD_BYTES, record_table_bytes(job->n_blocks)) != 0)
		return -ENOMEM;
	memset(job->table, 0, record_table_bytes(job->n_blocks));
	int r = wipe(job, size);
	if (r == 0 && !write_trailer(job, 0))
		r = -EIO;
	if (r == 0)
		fill(job);
	return r;
}

static void verify(struct job *job)
{
	size_t most = BUFFER_BYTES / RECORD_BYTES;

	for (uint64_t block = 0; block < job->n_blocks; block += most) {
		uint64_t left = job->n_blocks - block;

		check_blocks(job, block, left < most ? (size_t)left : most);
	}
	job->scanned += job->n_blocks;
}

static void settle(struct job *job)
{
	uint64_t n = record_table_bytes(job->n_blocks) / RECORD_BYTES;
	uint64_t most = BUFFER_BYTES / RECORD_BYTES;

	job->hash = record_table_hash(job->table, job->n_blocks);
	for (uint64_t i = 0; i < n; i += most)
		write_blocks(job, (char *)job->table + i * RECORD_BYTES, job->n_blocks + i,
			n - i < most ? (size_t)(n - i) : (size_t)most);
	write_trailer(job, job->hash);
	if (fsync(job->fd) < 0)
		job_error(job, "fsync", 0);
}

static void end(struct job *job)
{
	close(job->fd);
}

const struct job_kind seq_kind = {"seq", prepare, step_seq, verify, settle, end};
const struct job_kind random_kind = {"random", prepare, step_random, verify, settle, end};
const struct job_kind hot_kind = {"hot", prepare, step_hot, verify, settle, end};
const struct job_kind mixed_kind = {"mixed", prepare, step_mixed, verify, settle, end};
