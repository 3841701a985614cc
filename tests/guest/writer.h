/* SPDX-License-Identifier: Apache-2.0 */
/* The writer: a program in a guest that writes to its disks all the time, remembers in the guest's
 * memory what each block must hold, and reads back at random. What a move lost shows in the guest
 * itself. One job, with a thread of its own, per disk. */
#ifndef FERRY_TESTS_GUEST_WRITER_H
#define FERRY_TESTS_GUEST_WRITER_H

#include "tests/guest/record.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum command { COMMAND_NONE, COMMAND_STOP, COMMAND_GO, COMMAND_VERIFY, COMMAND_SYNC, COMMAND_END };

struct job;

struct job_kind {
	const char *name;
	int (*prepare)(struct job *job);
	void (*step)(struct job *job); /* one write, or what stands for it, and one read */
	void (*verify)(struct job *job);
	void (*settle)(struct job *job); /* everything is on the disk, and the table too */
	void (*end)(struct job *job);
};

struct job {
	const struct job_kind *kind;
	char device[16]; /* "vda" */
	_Atomic uint64_t rate;
	size_t write_bytes;
	uint64_t region_bytes; /* 0: the whole disk */
	uint64_t fill_bytes;
	uint64_t disk; /* in its records */
	uint64_t random;
	uint64_t next_usec; /* when the next step is due */
	bool stopped;

	/* of a disk */
	int fd;
	uint64_t n_blocks;
	uint64_t n_region;
	uint64_t cursor; /* sequential */
	uint32_t *table;
	struct record *buffer; /* BUFFER_BYTES */
	uint64_t hash;         /* of the table, as it was last put on the disk */

	/* what is told */
	_Atomic uint64_t sequence; /* the last one that was written and acknowledged */
	_Atomic uint64_t writes, discards, zeroes, reads, scanned, errors, wrong;
	_Atomic uint64_t max_usec, recent_usec;

	/* commands */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum command command; /* NONE again when it is done */
};

#define BUFFER_BYTES (256 << 10)
#define NOBODY_KNOWS UINT32_MAX /* in a table: a write of it failed */

extern const struct job_kind seq_kind, random_kind, hot_kind, mixed_kind, ext4_kind;

uint64_t now_usec(void); /* CLOCK_MONOTONIC */
uint64_t job_random(struct job *job);
/* A line on the console, whole. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* An operation failed (errno) or read what must not be there; counted and said. */
void job_error(struct job *job, const char *what, uint64_t block);
void job_wrong(struct job *job, const struct record *found, uint64_t block, uint64_t wanted);
/* How long one operation took. */
void job_took(struct job *job, uint64_t since_usec);

#endif
