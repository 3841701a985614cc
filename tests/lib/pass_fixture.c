/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/pass_fixture.h"

#include "agent/copy/digest.h"
#include "base/alloc.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static bool lies_about(struct pass_fixture *f, struct extent extent)
{
	if (!f->n_lies || extent.offset < f->lie_from || extent.offset >= f->lie_to)
		return false;
	if (f->n_lies > 0)
		f->n_lies--;
	return true;
}

static int compare(void *arg, unsigned disk, const struct extent *extents, size_t n,
	const unsigned char *digests, bool *ret_differs, struct fault *fault)
{
	struct pass_fixture *f = arg;
	unsigned char *own CLEANUP_FREE = xcalloc(n, DIGEST_BYTES);

	if (disk != 0 || n == 0 || n > PASS_MAX_EXTENTS)
		return fault_text(
			fault, -EPROTO, "a comparison of %zu extents of disk %u", n, disk);
	f->n_compares++;
	f->n_compared += n;
	f->last_offset = extents[n - 1].offset;
	if (f->compare_error)
		return fault_text(fault, f->compare_error, "the receiver cannot be asked");
	if (f->before_compare)
		f->before_compare(f);
	int r = digest_file_extents(
		f->copy->lun.path, f->copy->lun.size_bytes, extents, n, NULL, own, fault);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (ret_differs[i])
			return fault_text(fault, -EPROTO, "extent %zu differs already", i);
		ret_differs[i] = memcmp(own + i * DIGEST_BYTES, digests + i * DIGEST_BYTES,
					 DIGEST_BYTES) != 0 ||
				 lies_about(f, extents[i]);
	}
	return r;
}

int pass_fixture_setup(void **state)
{
	struct pass_fixture *f = xcalloc(1, sizeof(*f));
	void *copy = NULL;
	int r = copy_fixture_setup(&copy);

	f->copy = copy;
	*state = f;
	return r;
}

int pass_fixture_teardown(void **state)
{
	struct pass_fixture *f = *state;
	void *copy = f->copy;
	int r = copy_fixture_teardown(&copy);

	free(f);
	return r;
}

void pass_fixture_begin(struct pass_fixture *f, uint64_t size_bytes)
{
	struct copy_fixture *copy = f->copy;

	copy_fixture_source(copy, size_bytes);
	lun_start(&copy->lun, size_bytes, SERIAL, true);
	copy->has_lun = true;
	f->params = (struct pass_params){
		.db = copy->db,
		.migration = M,
		.source = copy->params.source,
		.target = lun_spec(&copy->lun, SERIAL),
		.progress = &copy->progress,
		.compare = compare,
		.arg = f,
		.cancel = copy->cancel,
	};
}

static void log_extent(struct pass_fixture *f, uint64_t offset, uint64_t length)
{
	struct extent extent = {offset, length};

	copy_fixture_log_add(f->copy, &extent, 1);
}

void pass_fixture_write(struct pass_fixture *f, uint64_t offset, uint64_t length, uint32_t seed)
{
	copy_fixture_fill(f->copy->source, offset, length, seed);
	log_extent(f, offset, length);
}

void pass_fixture_discard(struct pass_fixture *f, uint64_t offset, uint64_t length)
{
	int fd CLEANUP_CLOSE = open(f->copy->source, O_WRONLY | O_CLOEXEC);

	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
				 (off_t)length),
		0);
	log_extent(f, offset, length);
}

struct pass *pass_fixture_open(struct pass_fixture *f)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass *pass = NULL;

	check_ok(&fault, pass_open(&f->params, &pass, &fault));
	return pass;
}

struct pass_result pass_fixture_round(struct pass *pass)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct pass_result result;

	pass_begin(pass);
	check_ok(&fault, pass_await(pass, &result, &fault));
	return result;
}

void pass_fixture_check(struct pass_fixture *f)
{
	assert_int_equal(copy_fixture_log_bytes(f->copy), 0);
	copy_fixture_check_content(f->copy);
}
