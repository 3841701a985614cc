/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/copy_fixture.h"

#include "agent/copy/digest.h"
#include "base/alloc.h"
#include "base/io.h"
#include "tests/lib/check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

void copy_fixture_source(struct copy_fixture *f, uint64_t size_bytes)
{
	int fd CLEANUP_CLOSE = open(f->source, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
}

void copy_fixture_fill(const char *path, uint64_t offset, uint64_t length, uint32_t seed)
{
	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_CLOEXEC);
	uint32_t *data CLEANUP_FREE = malloc(MIB);

	assert_true(fd >= 0);
	while (length) {
		size_t n = (size_t)MIN(length, MIB);
		for (size_t i = 0; i < n / sizeof(*data); i++) {
			seed ^= seed << 13;
			seed ^= seed >> 17;
			seed ^= seed << 5;
			data[i] = seed;
		}
		assert_int_equal(io_pwrite_full(fd, data, n, offset), 0);
		offset += n;
		length -= n;
	}
}

void copy_fixture_fill_zeros(const char *path, uint64_t offset, uint64_t length)
{
	int fd CLEANUP_CLOSE = open(path, O_WRONLY | O_CLOEXEC);
	void *zeros CLEANUP_FREE = calloc(1, (size_t)length);

	assert_int_equal(io_pwrite_full(fd, zeros, (size_t)length, offset), 0);
}

void copy_fixture_log_add(struct copy_fixture *f, const struct extent *extents, size_t n)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	check_ok(&fault, extent_log_add(f->db, M, 0, extents, n, &fault));
}

static void log_all(struct copy_fixture *f)
{
	struct stat st;

	assert_int_equal(stat(f->source, &st), 0);
	struct extent all = {0, (uint64_t)st.st_size};
	copy_fixture_log_add(f, &all, 1);
}

uint64_t copy_fixture_log_bytes(struct copy_fixture *f)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t bytes = 0, rows = 0;

	check_ok(&fault, extent_log_total(f->db, M, 0, &bytes, &rows, &fault));
	return bytes;
}

void copy_fixture_begin(struct copy_fixture *f, uint64_t size_bytes)
{
	copy_fixture_source(f, size_bytes);
	log_all(f);
	lun_start(&f->lun, size_bytes, SERIAL, true);
	f->has_lun = true;
	f->params.target = lun_spec(&f->lun, SERIAL);
}

int copy_fixture_setup(void **state)
{
	char template[] = "/dev/shm/ferry-copier-XXXXXX";
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct copy_fixture *f = xcalloc(1, sizeof(*f));
	struct migration_row row = {
		.uuid = (char *)M, .role = ROLE_SENDER, .state = STATE_COPYING, .created = 1};

	if (!mkdtemp(template))
		return -1;
	f->dir = xstrdup(template);
	f->source = xasprintf("%s/source.img", template);
	f->db_path = xasprintf("%s/agent.db", template);
	row.document = value_new_struct();
	check_ok(&fault, agent_db_open(f->db_path, &f->db, &fault));
	check_ok(&fault, migration_insert(f->db, &row, &fault));
	value_free(row.document);
	f->cancel = cancel_new();
	f->params = (struct copy_params){
		.db = f->db,
		.migration = M,
		.source = {.kind = ENDPOINT_FILE, .path = f->source},
		.target_fresh = true,
		.progress = &f->progress,
		.cancel = f->cancel,
	};
	*state = f;
	return 0;
}

int copy_fixture_teardown(void **state)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	struct copy_fixture *f = *state;

	if (f->has_lun)
		lun_stop(&f->lun);
	agent_db_close(f->db);
	cancel_free(f->cancel);
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char *path CLEANUP_FREE = xasprintf("%s%s", f->db_path, suffixes[i]);
		unlink(path);
	}
	unlink(f->source);
	int r = rmdir(f->dir);
	free(f->dir);
	free(f->source);
	free(f->db_path);
	free(f);
	return r;
}

/* Compares the files, holes with holes at once. */
static void check_same_content(const char *a, const char *b)
{
	int fd_a CLEANUP_CLOSE = open(a, O_RDONLY | O_CLOEXEC);
	int fd_b CLEANUP_CLOSE = open(b, O_RDONLY | O_CLOEXEC);
	char *data_a CLEANUP_FREE = malloc(MIB);
	char *data_b CLEANUP_FREE = malloc(MIB);
	off_t size = lseek(fd_a, 0, SEEK_END);

	assert_int_equal(lseek(fd_b, 0, SEEK_END), size);
	for (off_t at = 0; at < size;) {
		off_t next_a = lseek(fd_a, at, SEEK_DATA), next_b = lseek(fd_b, at, SEEK_DATA);
		next_a = next_a < 0 ? size : next_a;
		next_b = next_b < 0 ? size : next_b;
		at = MIN(next_a, next_b);
		size_t n = (size_t)MIN(size - at, (off_t)MIB);
		if (n == 0)
			break;
		assert_int_equal(io_pread_full(fd_a, data_a, n, (uint64_t)at), 0);
		assert_int_equal(io_pread_full(fd_b, data_b, n, (uint64_t)at), 0);
		if (memcmp(data_a, data_b, n) != 0)
			fail_msg("content differs in the %zu bytes at %lld", n, (long long)at);
		at += (off_t)n;
	}
}

static void check_digests(struct copy_fixture *f, const char *target)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char stored[DIGEST_SPAN_BYTES], computed[DIGEST_SPAN_BYTES];
	struct stat st;

	assert_int_equal(stat(target, &st), 0);
	uint64_t size = (uint64_t)st.st_size;
	for (uint64_t span = 0; span < digest_n_spans(size); span++) {
		memset(stored, 0, sizeof(stored));
		check_ok(&fault, digest_load(f->db, M, 0, span, stored, sizeof(stored), &fault));
		check_ok(&fault, digest_file_span(target, size, span, NULL, computed, &fault));
		assert_memory_equal(stored, computed, DIGEST_SPAN_BYTES);
	}
}

static void check_allocation(const char *source, const char *target)
{
	struct stat from, to;

	assert_int_equal(stat(source, &from), 0);
	assert_int_equal(stat(target, &to), 0);
	assert_true((double)to.st_blocks <= 1.02 * (double)from.st_blocks);
}

void copy_fixture_check_content(struct copy_fixture *f)
{
	check_same_content(f->source, f->lun.path);
}

void copy_fixture_check(struct copy_fixture *f)
{
	assert_int_equal(copy_fixture_log_bytes(f), 0);
	copy_fixture_check_content(f);
	check_digests(f, f->lun.path);
	check_allocation(f->source, f->lun.path);
}

void copy_fixture_copy_and_check(struct copy_fixture *f)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t initial = copy_fixture_log_bytes(f);

	check_ok(&fault, copy_run(&f->params, &fault));
	copy_fixture_check(f);
	assert_int_equal(f->progress.log_initial, initial);
	assert_int_equal(f->progress.log_done, initial);
}
