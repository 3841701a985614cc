/* SPDX-License-Identifier: Apache-2.0 */
/* verify_image table IMAGE DISK HASH     every block holds what the writer's table says, whose hash
 *                                        the writer told on its console
 * verify_image loose IMAGE SEQUENCE      there is no such table: each block is zeros or whole and
 *                                        in its place, and the writer's last ones are there
 * verify_image files FOLDER DISK HASH    the files of a file system
 *
 * IMAGE is raw. Prints one line of JSON; exit code 0: good, 1: not. */
#include "tests/guest/record.h"

#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOLD 10

struct found {
	uint64_t records, zeros;
	uint64_t lost, torn, misplaced, foreign, unexpected;
	uint64_t last; /* sequence */
};

static void tell(const char *what, uint64_t block, uint64_t wanted, uint64_t sequence)
{
	static unsigned told;

	if (told++ < TOLD)
		fprintf(stderr, "block %llu: %s: sequence %llu where %llu must be\n",
			(unsigned long long)block, what, (unsigned long long)sequence,
			(unsigned long long)wanted);
}

static int result(const struct found *found, bool good)
{
	printf("{\"good\": %s, \"records\": %llu, \"zeros\": %llu, \"last\": %llu, \"lost\": %llu, "
	       "\"torn\": %llu, \"misplaced\": %llu, \"foreign\": %llu, \"unexpected\": %llu}\n",
		good ? "true" : "false", (unsigned long long)found->records,
		(unsigned long long)found->zeros, (unsigned long long)found->last,
		(unsigned long long)found->lost, (unsigned long long)found->torn,
		(unsigned long long)found->misplaced, (unsigned long long)found->foreign,
		(unsigned long long)found->unexpected);
	return good ? 0 : 1;
}

static bool is_clean(const struct found *found)
{
	return !found->lost && !found->torn && !found->misplaced && !found->foreign &&
	       !found->unexpected;
}

static const struct record *map_image(const char *path, uint64_t *ret_size)
{
	struct stat info;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &info) < 0)
		err(2, "%s", path);
	if (info.st_size == 0 || info.st_size % RECORD_BYTES)
		errx(2, "%s: not a multiple of %d bytes", path, RECORD_BYTES);
	const void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		err(2, "%s: mmap", path);
	close(fd);
	*ret_size = (uint64_t)info.st_size;
	return map;
}

/* Counts one block whose verdict is not "in its place"; true when it is. */
static bool judge(struct found *found, const struct record *record, uint64_t disk, uint64_t block,
	enum record_verdict *ret_verdict)
{
	*ret_verdict = record_judge(record, disk, block);
	switch (*ret_verdict) {
	case RECORD_GOOD:
		found->records++;
		if (record->sequence > found->last)
			found->last = record->sequence;
		return true;
	case RECORD_ZEROS:
		found->zeros++;
		return true;
	case RECORD_TORN:
		found->torn++;
		break;
	case RECORD_MISPLACED:
		found->misplaced++;
		break;
	case RECORD_FOREIGN:
		found->foreign++;
		break;
	}
	tell(record_verdict_name(*ret_verdict), block, 0, record->sequence);
	return false;
}

static int verify_table(const char *path, uint64_t disk, uint64_t hash)
{
	struct found found = {0};
	uint64_t size;
	const struct record *blocks = map_image(path, &size);
	const struct trailer *trailer = (const void *)&blocks[size / RECORD_BYTES - 1];
	uint64_t n = record_data_blocks(size);
	const uint32_t *table = (const void *)&blocks[n];

	if (trailer->magic != TRAILER_MAGIC || trailer->disk != disk || trailer->n_blocks != n)
		errx(1, "%s: the trailer is not the writer's", path);
	if (trailer->hash != hash || record_table_hash(table, n) != hash)
		errx(1, "%s: the table is not the one that the writer told of", path);
	for (uint64_t i = 0; i < n; i++) {
		enum record_verdict verdict;

		if (!judge(&found, &blocks[i], disk, i, &verdict))
			continue;
		uint64_t sequence = verdict == RECORD_GOOD ? blocks[i].sequence : 0;
		if (sequence == table[i])
			continue;
		if (sequence < table[i])
			found.lost++;
		else
			found.unexpected++;
		tell(sequence < table[i] ? "a write is lost" : "older content is back", i, table[i],
			sequence);
	}
	return result(&found, is_clean(&found));
}

static int verify_loose(const char *path, uint64_t sequence)
{
	struct found found = {0};
	uint64_t size;
	const struct record *blocks = map_image(path, &size);
	const struct trailer *trailer = (const void *)&blocks[size / RECORD_BYTES - 1];
	uint64_t n = record_data_blocks(size);
	enum record_verdict verdict;

	if (trailer->magic != TRAILER_MAGIC)
		errx(1, "%s: the trailer is not a writer's", path);
	for (uint64_t i = 0; i < n; i++)
		judge(&found, &blocks[i], trailer->disk, i, &verdict);
	if (found.last < sequence) {
		found.lost = sequence - found.last;
		tell("the last writes are lost", 0, sequence, found.last);
	}
	return result(&found, is_clean(&found));
}

/* --- Files --------------------------------------------------------------------------------------
 */

#define N_FILES 64

static uint64_t verify_file(struct found *found, const char *folder, unsigned slot, uint64_t disk)
{
	char path[4096];
	struct stat info;
	enum record_verdict verdict;
	uint64_t size;

	snprintf(path, sizeof(path), "%s/f%02u", folder, slot);
	if (stat(path, &info) < 0)
		return 0;
	const struct record *blocks = map_image(path, &size);
	uint64_t n = size / RECORD_BYTES;
	for (uint64_t i = 0; i < n; i++)
		if (!judge(found, &blocks[i], disk, (uint64_t)slot * 256 + i, &verdict) ||
			verdict == RECORD_ZEROS || blocks[i].sequence != blocks[0].sequence + i)
			found->unexpected++;
	return record_mix(blocks[0].sequence, n);
}

static int verify_files(const char *folder, uint64_t disk, uint64_t hash)
{
	struct found found = {0};
	uint64_t sum = N_FILES;

	for (unsigned slot = 0; slot < N_FILES; slot++)
		sum = record_mix(sum, verify_file(&found, folder, slot, disk));
	if ((sum | 1) != hash)
		warnx("%s: the files are not the ones that the writer told of", folder);
	return result(&found, is_clean(&found) && (sum | 1) == hash);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "table") == 0)
		return verify_table(
			argv[2], strtoull(argv[3], NULL, 16), strtoull(argv[4], NULL, 16));
	if (argc == 4 && strcmp(argv[1], "loose") == 0)
		return verify_loose(argv[2], strtoull(argv[3], NULL, 10));
	if (argc == 5 && strcmp(argv[1], "files") == 0)
		return verify_files(
			argv[2], strtoull(argv[3], NULL, 16), strtoull(argv[4], NULL, 16));
	fprintf(stderr, "usage: verify_image table IMAGE DISK HASH | loose IMAGE SEQUENCE | "
			"files FOLDER DISK HASH\n");
	return 2;
}
