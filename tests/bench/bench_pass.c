/* SPDX-License-Identifier: Apache-2.0 */
/* What a round of a pass costs when the guest has changed N random blocks of 4 KiB: the last one is
 * part of the guest's pause. The target is a real tgtd on loopback; the comparison hashes its file
 * in this process, so the call between the agents is not in it. Prints a line of JSON per N. */
#include "agent/copy/digest.h"
#include "agent/copy/pass.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parse.h"
#include "schema/agent_db.h"
#include "tests/lib/lun.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

#define MIGRATION "00000000-0000-4000-8000-000000000001"
#define SERIAL    "bench-0-1"
#define BLOCK     4096
#define MIB       (UINT64_C(1) << 20)

struct bench {
	const char *folder;
	uint64_t size_mib, n_rounds;
	bool direct;
	char *dir, *source, *db_path;
	int source_fd;
	struct agent_db *db;
	struct lun lun;
	struct pass *pass;
	uint64_t compare_usec; /* of the round */
	uint64_t random;
};

static uint64_t next_random(struct bench *bench)
{
	bench->random ^= bench->random << 13;
	bench->random ^= bench->random >> 7;
	bench->random ^= bench->random << 17;
	return bench->random;
}

static int compare(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	struct bench *bench = arg;
	unsigned char *own CLEANUP_FREE = xcalloc(n, DIGEST_BYTES);
	uint64_t before = clock_now_usec();
	int r = digest_file_extents(
		bench->lun.path, bench->lun.size_bytes, extents, n, NULL, own, fault);

	(void)disk;
	for (size_t i = 0; i < n; i++)
		ret_differs[i] = memcmp(own + i * DIGEST_BYTES, digests + i * DIGEST_BYTES,
					 DIGEST_BYTES) != 0;
	bench->compare_usec += clock_now_usec() - before;
	return r;
}

/* The guest writes, and the log gets it. */
static int write_blocks(struct bench *bench, size_t n, struct fault *fault)
{
	struct extent *extents CLEANUP_FREE = xcalloc(n, sizeof(*extents));
	uint64_t data[BLOCK / sizeof(uint64_t)];

	for (size_t i = 0; i < n; i++) {
		uint64_t block = next_random(bench) % (bench->size_mib * MIB / BLOCK);
		extents[i] = (struct extent){block * BLOCK, BLOCK};
		for (size_t j = 0; j < ARRAY_SIZE(data); j++)
			data[j] = next_random(bench);
		int r = io_pwrite_full(bench->source_fd, data, BLOCK, extents[i].offset);
		if (r < 0)
			return fault_errno(fault, r, "%s", bench->source);
	}
	/* As a guest with cache=none leaves it: on the disk. */
	fdatasync(bench->source_fd);
	return extent_log_add(bench->db, MIGRATION, 0, extents, n, fault);
}

static int by_value(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static double median_ms(uint64_t *values, size_t n)
{
	qsort(values, n, sizeof(*values), by_value);
	return (double)values[n / 2] / 1000;
}

static void print(size_t n_blocks, uint64_t *usec, uint64_t *busy, uint64_t *compared, size_t n)
{
	struct value *line CLEANUP_VALUE = value_new_struct();

	value_set(line, "blocks", value_new_int((int64_t)n_blocks));
	value_set(line, "round_ms", value_new_double(median_ms(usec, n)));
	value_set(line, "slowest_ms", value_new_double((double)usec[n - 1] / 1000));
	value_set(line, "sending_ms", value_new_double(median_ms(busy, n)));
	value_set(line, "comparing_ms", value_new_double(median_ms(compared, n)));
	struct buf text CLEANUP_BUF = BUF_INIT;
	json_encode(line, &text);
	printf("%.*s\n", (int)text.length, (const char *)text.data);
	fflush(stdout);
}

static int measure(struct bench *bench, size_t n_blocks, struct fault *fault)
{
	size_t n = (size_t)bench->n_rounds;
	uint64_t *usec CLEANUP_FREE = xcalloc(n, sizeof(*usec));
	uint64_t *busy CLEANUP_FREE = xcalloc(n, sizeof(*busy));
	uint64_t *compared CLEANUP_FREE = xcalloc(n, sizeof(*compared));

	for (size_t i = 0; i < n; i++) {
		struct pass_result result;
		int r = write_blocks(bench, n_blocks, fault);
		if (r < 0)
			return r;
		/* As before the memory stream, so that the last flush is short. */
		pass_begin_flush(bench->pass);
		r = pass_await(bench->pass, NULL, fault);
		if (r < 0)
			return r;
		bench->compare_usec = 0;
		uint64_t before = clock_now_usec();
		pass_begin(bench->pass);
		r = pass_await(bench->pass, &result, fault);
		if (r < 0)
			return r;
		usec[i] = clock_now_usec() - before;
		busy[i] = result.busy_usec;
		compared[i] = bench->compare_usec;
	}
	print(n_blocks, usec, busy, compared, n);
	return 0;
}

/* --- Life ------------------------------------------------------------------------------------- */

static int make_source(struct bench *bench, struct fault *fault)
{
	char *template = xasprintf("%s/ferry-bench-XXXXXX", bench->folder);

	bench->dir = template;
	if (!mkdtemp(template))
		return fault_errno(fault, -errno, "%s", template);
	bench->source = xasprintf("%s/source.img", bench->dir);
	bench->db_path = xasprintf("%s/agent.db", bench->dir);
	bench->source_fd = open(bench->source, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (bench->source_fd < 0)
		return fault_errno(fault, -errno, "%s", bench->source);
	for (uint64_t mib = 0; mib < bench->size_mib; mib++) {
		uint64_t data[MIB / sizeof(uint64_t) / 16];
		for (int part = 0; part < 16; part++) {
			for (size_t i = 0; i < ARRAY_SIZE(data); i++)
				data[i] = next_random(bench);
			int r = io_write_full(bench->source_fd, data, sizeof(data));
			if (r < 0)
				return fault_errno(fault, r, "%s", bench->source);
		}
	}
	return 0;
}

static int open_all(struct bench *bench, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = value_new_struct();
	struct migration_row row = {.uuid = (char *)MIGRATION,
		.role = ROLE_SENDER,
		.state = STATE_CONVERGING,
		.document = document,
		.created = clock_wall_sec()};
	struct extent all = {0, bench->size_mib * MIB};
	int r = make_source(bench, fault);

	if (r == 0)
		r = agent_db_open(bench->db_path, &bench->db, fault);
	if (r == 0)
		r = migration_insert(bench->db, &row, fault);
	if (r == 0)
		r = extent_log_add(bench->db, MIGRATION, 0, &all, 1, fault);
	if (r < 0)
		return r;
	lun_start_in(&bench->lun, bench->folder, all.length, SERIAL, true);
	struct pass_params params = {
		.db = bench->db,
		.migration = MIGRATION,
		.source = {.kind = ENDPOINT_FILE, .path = bench->source, .direct = bench->direct},
		.target = lun_spec(&bench->lun, SERIAL),
		.compare = compare,
		.arg = bench,
	};
	r = pass_open(&params, &bench->pass, fault);
	if (r < 0)
		return r;
	return 0;
}

/* A round over the whole disk, compared batch by batch. */
static int measure_whole(struct bench *bench, struct fault *fault)
{
	struct value *line CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct pass_result result;

	pass_begin(bench->pass);
	int r = pass_await(bench->pass, &result, fault);
	if (r < 0)
		return r;
	value_set(line, "whole_mib", value_new_int((int64_t)bench->size_mib));
	value_set(line, "mib_per_s",
		value_new_int((int64_t)(result.sent_bytes * USEC_PER_SEC / MIB / result.usec)));
	value_set(line, "busy_mib_per_s",
		value_new_int(
			(int64_t)(result.sent_bytes * USEC_PER_SEC / MIB / result.busy_usec)));
	json_encode(line, &text);
	printf("%.*s\n", (int)text.length, (const char *)text.data);
	return 0;
}

static void close_all(struct bench *bench)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};

	pass_close(bench->pass);
	if (bench->lun.dir)
		lun_stop(&bench->lun);
	agent_db_close(bench->db);
	if (bench->source_fd >= 0)
		close(bench->source_fd);
	for (size_t i = 0; bench->db_path && i < ARRAY_SIZE(suffixes); i++) {
		char *path CLEANUP_FREE = xasprintf("%s%s", bench->db_path, suffixes[i]);
		unlink(path);
	}
	if (bench->source)
		unlink(bench->source);
	rmdir(bench->dir);
	free(bench->source);
	free(bench->db_path);
	free(bench->dir);
}

static int parse(struct bench *bench, int argc, char **argv)
{
	static const struct option options[] = {{"size", required_argument, NULL, 's'},
		{"rounds", required_argument, NULL, 'r'}, {"folder", required_argument, NULL, 'f'},
		{"direct", no_argument, NULL, 'd'}, {0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		int r = 0;
		if (option == 's')
			r = parse_range(optarg, 1, 1 << 20, &bench->size_mib);
		else if (option == 'r')
			r = parse_range(optarg, 1, 10000, &bench->n_rounds);
		else if (option == 'f')
			bench->folder = optarg;
		else if (option == 'd')
			bench->direct = true;
		else
			r = -EINVAL;
		if (r < 0)
			return r;
	}
	return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {0, 1, 100, 300, 3000};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct bench bench = {.folder = "/dev/shm",
		.size_mib = 256,
		.n_rounds = 21,
		.source_fd = -1,
		.random = UINT64_C(0x9e3779b97f4a7c15)};

	if (parse(&bench, argc, argv) < 0) {
		fprintf(stderr, "usage: bench_pass [--size MIB] [--rounds N] [--folder DIR] "
				"[--direct]\n");
		return 2;
	}
	if (!lun_is_available())
		return 77;
	log_set_level(LOG_LEVEL_WARN);
	int r = open_all(&bench, &fault);
	if (r == 0)
		r = measure_whole(&bench, &fault);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sizes); i++)
		r = measure(&bench, sizes[i], &fault);
	close_all(&bench);
	if (r == 0)
		return 0;
	char *text CLEANUP_FREE = fault_describe(&fault);
	fprintf(stderr, "bench_pass: %s\n", text);
	return 1;
}
