/* SPDX-License-Identifier: Apache-2.0 */
/* What the writer in a guest puts on its disks, and what is found there: blocks that say which disk
 * and block they belong to and the how manieth write they are, filled up by a generator that starts
 * from just that, so that every byte is known. Shared by the writer and by the verifier on the
 * host.
 *
 * The end of each disk is not data but the writer's table: the sequence number that each block must
 * hold, 0 for zeros; behind it, in the last block, a trailer with the table's hash. */
#ifndef FERRY_TESTS_GUEST_RECORD_H
#define FERRY_TESTS_GUEST_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RECORD_BYTES  4096
#define RECORD_MAGIC  UINT64_C(0x6665727279726563) /* "ferryrec" */
#define TRAILER_MAGIC UINT64_C(0x6665727279746162) /* "ferrytab" */

struct record {
	uint64_t magic;
	uint64_t disk; /* random, of this run of the writer */
	uint64_t block;
	uint64_t sequence; /* from 1 */
	uint64_t payload[RECORD_BYTES / 8 - 4];
};

struct trailer {
	uint64_t magic;
	uint64_t disk;
	uint64_t n_blocks; /* of data */
	uint64_t sequence; /* the last one written */
	uint64_t hash;     /* of the table; 0: the writer is at work, the table is not there */
};

enum record_verdict {
	RECORD_GOOD,
	RECORD_ZEROS,
	RECORD_FOREIGN,   /* neither zeros nor a record */
	RECORD_TORN,      /* begins as a record, and is not whole */
	RECORD_MISPLACED, /* a whole record of another block, disk or run */
};

static inline const char *record_verdict_name(enum record_verdict verdict)
{
	static const char *const names[] = {"record", "zeros", "foreign", "torn", "misplaced"};

	return names[verdict];
}

/* Multiply and fold: each bit of the result depends on each bit of both. */
static inline uint64_t record_mix(uint64_t a, uint64_t b)
{
	a = (a ^ (b * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xff51afd7ed558ccd);
	return a ^ (a >> 32);
}

static inline void record_fill(
	struct record *record, uint64_t disk, uint64_t block, uint64_t sequence)
{
	uint64_t word = record_mix(record_mix(disk, block), sequence) | 1;

	record->magic = RECORD_MAGIC;
	record->disk = disk;
	record->block = block;
	record->sequence = sequence;
	for (size_t i = 0; i < sizeof(record->payload) / 8; i++) {
		word ^= word << 13;
		word ^= word >> 7;
		word ^= word << 17;
		record->payload[i] = word;
	}
}

static inline bool record_is_zeros(const struct record *record)
{
	const uint64_t *words = (const uint64_t *)record;

	for (size_t i = 0; i < RECORD_BYTES / 8; i++)
		if (words[i])
			return false;
	return true;
}

static inline enum record_verdict record_judge(
	const struct record *record, uint64_t disk, uint64_t block)
{
	struct record whole;

	if (record->magic != RECORD_MAGIC)
		return record_is_zeros(record) ? RECORD_ZEROS : RECORD_FOREIGN;
	record_fill(&whole, record->disk, record->block, record->sequence);
	if (memcmp(record, &whole, sizeof(whole)) != 0)
		return RECORD_TORN;
	return record->disk == disk && record->block == block ? RECORD_GOOD : RECORD_MISPLACED;
}

/* Blocks of data on a disk of so many bytes; the rest is the table and its trailer. */
static inline uint64_t record_data_blocks(uint64_t disk_bytes)
{
	uint64_t blocks = disk_bytes / RECORD_BYTES;
	uint64_t table = (blocks * sizeof(uint32_t) + RECORD_BYTES - 1) / RECORD_BYTES;

	return blocks > table + 1 ? blocks - table - 1 : 0;
}

/* Bytes of the table as it lies on the disk: whole blocks. */
static inline size_t record_table_bytes(uint64_t n_blocks)
{
	return (size_t)((n_blocks * sizeof(uint32_t) + RECORD_BYTES - 1) / RECORD_BYTES *
			RECORD_BYTES);
}

static inline uint64_t record_table_hash(const uint32_t *table, uint64_t n_blocks)
{
	uint64_t hash = n_blocks;

	for (uint64_t i = 0; i < n_blocks; i++)
		hash = record_mix(hash, table[i]);
	return hash | 1;
}

#endif
