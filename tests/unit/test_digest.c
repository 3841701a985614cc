/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/digest.h"
#include "agent/copy/zero.h"

#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static char path[] = "/tmp/ferry-digest-XXXXXX";

static int setup(void **state)
{
	strcpy(path + sizeof(path) - 7, "XXXXXX");
	int fd = mkstemp(path);
	*state = (void *)(intptr_t)fd;
	return fd < 0;
}

static int teardown(void **state)
{
	close((int)(intptr_t)*state);
	return unlink(path);
}

static void fill(unsigned char *data, size_t length)
{
	for (size_t i = 0; i < length; i++)
		data[i] = (unsigned char)(i * 31 + i / 251);
}

static void zeros_have_the_zero_digest(void **state)
{
	unsigned char *data CLEANUP_FREE = calloc(1, DIGEST_CHUNK);
	unsigned char digest[DIGEST_BYTES];

	(void)state;
	memset(digest, 1, sizeof(digest));
	digest_chunk(data, DIGEST_CHUNK, digest);
	assert_true(zero_is_all(digest, sizeof(digest)));
	data[DIGEST_CHUNK - 1] = 1;
	digest_chunk(data, DIGEST_CHUNK, digest);
	assert_false(zero_is_all(digest, sizeof(digest)));
}

/* What xxh128sum(1) prints for "ferry": the form on the wire must not drift. */
static void the_form_is_xxh3_128_canonical(void **state)
{
	static const unsigned char expected[DIGEST_BYTES] = {0x85, 0xca, 0x3a, 0x0d, 0xfc, 0xfe,
		0x59, 0x84, 0x93, 0x31, 0xf4, 0x3f, 0xcd, 0xbd, 0x2e, 0xb8};
	unsigned char digest[DIGEST_BYTES];

	(void)state;
	digest_chunk("ferry", 5, digest);
	assert_memory_equal(digest, expected, DIGEST_BYTES);
}

static void pieces_give_the_digest_of_the_whole(void **state)
{
	static const size_t pieces[] = {512, 4096, 65536, 1 << 20};
	unsigned char *data CLEANUP_FREE = calloc(1, DIGEST_CHUNK);
	struct digest_stream *stream CLEANUP_DIGEST_STREAM = digest_stream_new();
	unsigned char whole[DIGEST_BYTES], streamed[DIGEST_BYTES];

	(void)state;
	/* Zeros at the start, in the middle and at the end. */
	fill(data + (1 << 20), 512 << 10);
	fill(data + (2 << 20), 512 << 10);
	digest_chunk(data, DIGEST_CHUNK, whole);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		for (size_t at = 0; at < DIGEST_CHUNK; at += pieces[i]) {
			if (i % 2 && zero_is_all(data + at, pieces[i]))
				digest_stream_add_zeros(stream, pieces[i]);
			else
				digest_stream_add(stream, data + at, pieces[i]);
		}
		digest_stream_finish(stream, streamed);
		assert_memory_equal(streamed, whole, DIGEST_BYTES);
	}
	digest_stream_add_zeros(stream, DIGEST_CHUNK);
	digest_stream_finish(stream, streamed);
	assert_true(zero_is_all(streamed, DIGEST_BYTES));
}

static void a_files_span_has_its_chunks_digests(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int fd = (int)(intptr_t)*state;
	uint64_t size = DIGEST_SPAN + 2 * DIGEST_CHUNK + 512;
	unsigned char *data CLEANUP_FREE = calloc(1, DIGEST_CHUNK);
	unsigned char digests[DIGEST_SPAN_BYTES], expected[DIGEST_BYTES];

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(digest_n_spans(size), 2);
	fill(data + 8192, 4096);
	assert_int_equal(pwrite(fd, data, DIGEST_CHUNK, DIGEST_CHUNK), DIGEST_CHUNK);
	assert_int_equal(pwrite(fd, data + 8192, 512, (off_t)size - 512), 512);
	check_ok(&fault, digest_file_span(path, size, 0, NULL, digests, &fault));
	digest_chunk(data, DIGEST_CHUNK, expected);
	assert_memory_equal(digests + DIGEST_BYTES, expected, DIGEST_BYTES);
	assert_true(zero_is_all(digests, DIGEST_BYTES));
	assert_true(zero_is_all(digests + 2 * DIGEST_BYTES, DIGEST_SPAN_BYTES - 2 * DIGEST_BYTES));
	check_ok(&fault, digest_file_span(path, size, 1, NULL, digests, &fault));
	digest_chunk(data + 8192, 512, expected);
	assert_memory_equal(digests + 2 * DIGEST_BYTES, expected, DIGEST_BYTES);
	assert_true(zero_is_all(digests, 2 * DIGEST_BYTES));
	assert_true(zero_is_all(digests + 3 * DIGEST_BYTES, DIGEST_SPAN_BYTES - 3 * DIGEST_BYTES));
}

static void a_wrong_size_or_span_is_an_error(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	unsigned char digests[DIGEST_SPAN_BYTES];

	assert_int_equal(ftruncate((int)(intptr_t)*state, 1 << 20), 0);
	assert_int_equal(digest_file_span(path, 2 << 20, 0, NULL, digests, &fault), -EIO);
	assert_int_equal(digest_file_span(path, 1 << 20, 1, NULL, digests, &fault), -EINVAL);
	cancel_request(cancel, "enough");
	assert_int_equal(digest_file_span(path, 1 << 20, 0, cancel, digests, &fault), -ECANCELED);
}

/* What the file holds at the extent, read in one go. */
static void expect_digest(int fd, struct extent extent, const unsigned char *digest)
{
	unsigned char *data CLEANUP_FREE = malloc(extent.length);
	unsigned char expected[DIGEST_BYTES];

	assert_int_equal(pread(fd, data, extent.length, (off_t)extent.offset), extent.length);
	digest_chunk(data, extent.length, expected);
	assert_memory_equal(digest, expected, DIGEST_BYTES);
}

static void extents_have_the_digests_of_their_bytes(void **state)
{
	static const struct extent extents[] = {{4096, 4096}, {MIB, MIB}, {5 * MIB - 512, 1024},
		{7 * MIB + 512, 512}, {4096, 4096}, {3 * MIB - 4096, 8192}, {4 * MIB, 4096},
		{16 * MIB - 512, 1024}, {512 * MIB, MIB}};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int fd = (int)(intptr_t)*state;
	uint64_t size = UINT64_C(1) << 40;
	unsigned char *data CLEANUP_FREE = calloc(1, MIB);
	unsigned char digests[ARRAY_SIZE(extents) * DIGEST_BYTES];

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	/* Data over the first 3 MiB, zeros that were written, a sector amid a hole. */
	fill(data, MIB);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pwrite(fd, data, MIB, i * (off_t)MIB), MIB);
	assert_int_equal(pwrite(fd, data, 512, 16 * (off_t)MIB), 512);
	memset(data, 0, MIB);
	assert_int_equal(pwrite(fd, data, MIB, 4 * (off_t)MIB), MIB);
	check_ok(&fault, digest_file_extents(
				 path, size, extents, ARRAY_SIZE(extents), NULL, digests, &fault));
	for (size_t i = 0; i < ARRAY_SIZE(extents); i++)
		expect_digest(fd, extents[i], digests + i * DIGEST_BYTES);
	assert_true(zero_is_all(digests + 6 * DIGEST_BYTES, DIGEST_BYTES));
	assert_true(zero_is_all(digests + 8 * DIGEST_BYTES, DIGEST_BYTES));
	assert_false(zero_is_all(digests + 7 * DIGEST_BYTES, DIGEST_BYTES));
	check_ok(&fault, digest_file_extents(path, size, NULL, 0, NULL, NULL, &fault));
}

static void a_bad_extent_is_an_error_that_names_it(void **state)
{
	static const struct extent bad[] = {{0, 0}, {0, MIB + 512}, {1, 512}, {512, 100},
		{4 * MIB - 512, 1024}, {UINT64_MAX - 511, 512}, {8 * MIB, 512}};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	unsigned char digests[2 * DIGEST_BYTES];

	assert_int_equal(ftruncate((int)(intptr_t)*state, 4 * MIB), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct extent extents[] = {{0, 512}, bad[i]};
		char offset[32];
		snprintf(offset, sizeof(offset), "%llu", (unsigned long long)bad[i].offset);
		assert_int_equal(
			digest_file_extents(path, 4 * MIB, extents, 2, NULL, digests, &fault),
			-EINVAL);
		assert_non_null(strstr(fault.params[0], offset));
	}
	struct extent good = {0, 512};
	assert_int_equal(digest_file_extents(path, 2 * MIB, &good, 1, NULL, digests, &fault), -EIO);
	cancel_request(cancel, "enough");
	assert_int_equal(
		digest_file_extents(path, 4 * MIB, &good, 1, cancel, digests, &fault), -ECANCELED);
}

static void zero_runs_are_found_in_blocks(void **state)
{
	unsigned char *data CLEANUP_FREE = calloc(1, 10 * ZERO_BLOCK);
	bool zero = false;

	(void)state;
	data[2 * ZERO_BLOCK] = 1;
	data[4 * ZERO_BLOCK - 1] = 1;
	assert_int_equal(zero_run(data, 10 * ZERO_BLOCK, &zero), 2 * ZERO_BLOCK);
	assert_true(zero);
	assert_int_equal(zero_run(data + 2 * ZERO_BLOCK, 8 * ZERO_BLOCK, &zero), 2 * ZERO_BLOCK);
	assert_false(zero);
	assert_int_equal(
		zero_run(data + 4 * ZERO_BLOCK, 5 * ZERO_BLOCK + 512, &zero), 5 * ZERO_BLOCK + 512);
	assert_true(zero);
	for (size_t length = 0; length < 40; length++) {
		unsigned char bytes[40] = {0};
		assert_true(zero_is_all(bytes, length));
		for (size_t i = 0; i < length; i++) {
			bytes[i] = 0x80;
			assert_false(zero_is_all(bytes, length));
			bytes[i] = 0;
		}
	}
}

#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_have_the_zero_digest),
		cmocka_unit_test(the_form_is_xxh3_128_canonical),
		cmocka_unit_test(pieces_give_the_digest_of_the_whole),
		cmocka_unit_test(zero_runs_are_found_in_blocks),
		FILE_TEST(a_files_span_has_its_chunks_digests),
		FILE_TEST(a_wrong_size_or_span_is_an_error),
		FILE_TEST(extents_have_the_digests_of_their_bytes),
		FILE_TEST(a_bad_extent_is_an_error_that_names_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
