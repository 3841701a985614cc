/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "target/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLUSTER      UINT64_C(65536)
#define FILE_BYTES   (4 * CLUSTER)
#define L1_OFFSET    (3 * CLUSTER)
#define HEADER_BYTES 112
#define GIB          (UINT64_C(1) << 30)

/* --- Images made by hand ------------------------------------------------------------------------
 */

static void put32(unsigned char *p, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(value >> (24 - 8 * i));
}

static void put64(unsigned char *p, uint64_t value)
{
	put32(p, (uint32_t)(value >> 32));
	put32(p + 4, (uint32_t)value);
}

/* A sound header of version 3, of a disk of 1 GiB. */
static void make_header(unsigned char header[512])
{
	memset(header, 0, 512);
	memcpy(header, "QFI\xfb", 4);
	put32(header + 4, 3);
	put32(header + 20, 16);
	put64(header + 24, GIB);
	put32(header + 36, 2);
	put64(header + 40, L1_OFFSET);
	put64(header + 48, CLUSTER);
	put32(header + 56, 1);
	put32(header + 96, 4);
	put32(header + 100, HEADER_BYTES);
}

static int parse(const unsigned char *header, size_t length, struct qcow2_header *ret_header,
	struct fault *fault)
{
	/* Of the exact size: reading beyond it is seen by AddressSanitizer. */
	unsigned char *copy CLEANUP_FREE = malloc(length ? length : 1);

	memcpy(copy, header, length);
	return qcow2_parse(copy, length, FILE_BYTES, ret_header, fault);
}

static void a_sound_header_is_read(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char header[512];
	struct qcow2_header read;

	(void)state;
	make_header(header);
	check_ok(&fault, parse(header, sizeof(header), &read, &fault));
	assert_int_equal(read.version, 3);
	assert_int_equal(read.virtual_bytes, GIB);
	assert_int_equal(read.l1_entries, 2);
	assert_int_equal(read.l1_offset, L1_OFFSET);
	assert_false(read.extended_l2);
	/* Known extensions, and one that is not: they are passed over. */
	put32(header + HEADER_BYTES, 0x6803f857);
	put32(header + HEADER_BYTES + 4, 11);
	put32(header + HEADER_BYTES + 24, 0x12345678);
	check_ok(&fault, parse(header, sizeof(header), &read, &fault));
	put32(header + 4, 2);
	check_ok(&fault, parse(header, sizeof(header), &read, &fault));
}

static const struct damage {
	const char *text; /* that the refusal has */
	size_t at;
	unsigned n_bytes;
	uint64_t value;
} damages[] = {
	{"no qcow2 image", 0, 4, 0x7f454c46},
	{"version 1", 4, 4, 1},
	{"version 4", 4, 4, 4},
	{"backing file", 8, 8, 512},
	{"clusters have 2^8", 20, 4, 8},
	{"clusters have 2^22", 20, 4, 22},
	{"clusters have 2^4294967295", 20, 4, UINT32_MAX},
	{"has 0 bytes", 24, 8, 0},
	{"has 513 bytes", 24, 8, 513},
	{"18446744073709551104 bytes", 24, 8, UINT64_MAX - 511},
	{"covers fewer", 24, 8, GIB + 512},
	{"covers fewer", 24, 8, INT64_MAX / 512 * 512},
	{"encrypted", 32, 4, 2},
	{"covers fewer", 36, 4, 0},
	{"L1 table has", 36, 4, UINT32_MAX},
	{"beyond the end", 36, 4, 32768 / 8 * 3},
	{"not the start of a cluster", 40, 8, L1_OFFSET + 8},
	{"not the start of a cluster", 40, 8, 0},
	{"beyond the end", 40, 8, FILE_BYTES},
	{"beyond the end", 40, 8, UINT64_MAX - CLUSTER + 1},
	{"refcount table", 48, 8, 100 * CLUSTER},
	{"refcount table", 56, 4, 0},
	{"refcount table", 56, 4, UINT32_MAX},
	{"3 internal snapshots", 60, 4, 3},
	{"corrupt", 72, 8, 1 << 1},
	{"external data file", 72, 8, 1 << 2},
	{"not known here (0x8000000000000020)", 72, 8, UINT64_C(1) << 63 | 1 << 5},
	{"2^7 bits", 96, 4, 7},
	{"header says it has 72", 100, 4, 72},
	{"header", 100, 4, 105},
	{"header", 100, 4, 65528},
	{"header", 100, 4, UINT32_MAX},
	{"external data file", HEADER_BYTES, 4, 0x44415441},
	{"encryption header", HEADER_BYTES, 4, 0x0537be77},
};

static void damage_is_refused_with_its_reason(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		const struct damage *damage = &damages[i];
		unsigned char header[512];
		struct qcow2_header read;
		make_header(header);
		if (damage->n_bytes == 4)
			put32(header + damage->at, (uint32_t)damage->value);
		else
			put64(header + damage->at, damage->value);
		int r = parse(header, sizeof(header), &read, &fault);
		if (r != -EINVAL || !strstr(fault.params[0], damage->text))
			fail_msg("damage %zu: %d \"%s\" does not say \"%s\"", i, r,
				fault.n_params ? fault.params[0] : "", damage->text);
	}
}

static void an_extension_beyond_its_cluster_is_refused(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	unsigned char header[512];
	struct qcow2_header read;

	(void)state;
	make_header(header);
	put32(header + HEADER_BYTES, 0x23852875);
	put32(header + HEADER_BYTES + 4, UINT32_MAX);
	assert_int_equal(parse(header, sizeof(header), &read, &fault), -EINVAL);
	assert_non_null(strstr(fault.params[0], "reaches beyond"));
	/* It ends where the file has more, and what was read has not. */
	put32(header + HEADER_BYTES + 4, 4096);
	assert_int_equal(parse(header, sizeof(header), &read, &fault), -EINVAL);
}

static void a_header_cut_anywhere_is_refused(void **state)
{
	unsigned char header[512];
	struct qcow2_header read;

	(void)state;
	make_header(header);
	for (size_t length = 0; length < HEADER_BYTES; length++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		assert_int_equal(parse(header, length, &read, &fault), -EINVAL);
		assert_non_null(strstr(fault.params[0], "cut short"));
	}
}

/* --- Files --------------------------------------------------------------------------------------
 */

static char dir[] = "/tmp/ferry-qcow2-XXXXXX";
static char *path;

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	path = xasprintf("%s/image.qcow2", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	free(path);
	return rmdir(dir);
}

static FILE *create_image(uint64_t l1_first, uint64_t l1_second)
{
	unsigned char header[512], entries[16];
	FILE *file = fopen(path, "w+");

	make_header(header);
	put64(entries, l1_first);
	put64(entries + 8, l1_second);
	assert_int_equal(fwrite(header, 1, sizeof(header), file), sizeof(header));
	assert_int_equal(fseek(file, (long)L1_OFFSET, SEEK_SET), 0);
	assert_int_equal(fwrite(entries, 1, sizeof(entries), file), sizeof(entries));
	assert_int_equal(fflush(file), 0);
	assert_int_equal(ftruncate(fileno(file), 6 * CLUSTER), 0);
	return file;
}

static void put_entry(FILE *file, uint64_t at, uint64_t entry)
{
	unsigned char bytes[8];

	put64(bytes, entry);
	assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
	assert_int_equal(fwrite(bytes, 1, sizeof(bytes), file), sizeof(bytes));
	assert_int_equal(fflush(file), 0);
}

#define COPIED (UINT64_C(1) << 63)

static void data_is_counted_and_zeros_are_not(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	FILE *file CLEANUP_FCLOSE = create_image(COPIED | 4 * CLUSTER, 0);
	uint64_t bytes = 1;

	(void)state;
	check_ok(&fault, qcow2_data_bytes(path, &bytes, &fault));
	assert_int_equal(bytes, 0);
	put_entry(file, 4 * CLUSTER, COPIED | 5 * CLUSTER);
	put_entry(file, 4 * CLUSTER + 8, COPIED | 5 * CLUSTER | 1);     /* zeros, allocated */
	put_entry(file, 4 * CLUSTER + 16, 1);                           /* zeros */
	put_entry(file, 4 * CLUSTER + 80, UINT64_C(1) << 62 | 0x50123); /* compressed */
	put_entry(file, 5 * CLUSTER - 8, COPIED | 5 * CLUSTER);         /* the last one */
	check_ok(&fault, qcow2_data_bytes(path, &bytes, &fault));
	assert_int_equal(bytes, 3 * CLUSTER);
}

static void tables_that_lead_nowhere_are_refused(void **state)
{
	static const uint64_t bad[] = {6 * CLUSTER, 4 * CLUSTER + 512, UINT64_C(1) << 55};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		FILE *file CLEANUP_FCLOSE = create_image(COPIED | bad[i], 0);
		uint64_t bytes;
		assert_int_equal(qcow2_data_bytes(path, &bytes, &fault), -EINVAL);
		assert_non_null(strstr(fault.params[0], "no L2 table"));
	}
}

/* A table of 4 million entries that all lead to the same place would be hours of reading. */
static void tables_that_repeat_are_bounded(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	FILE *file CLEANUP_FCLOSE = create_image(COPIED | 4 * CLUSTER, 0);
	unsigned char header[512];
	uint64_t bytes;

	(void)state;
	make_header(header);
	put32(header + 36, 100);
	assert_int_equal(fseek(file, 0, SEEK_SET), 0);
	assert_int_equal(fwrite(header, 1, sizeof(header), file), sizeof(header));
	for (unsigned i = 0; i < 100; i++)
		put_entry(file, L1_OFFSET + 8 * i, COPIED | 4 * CLUSTER);
	assert_int_equal(qcow2_data_bytes(path, &bytes, &fault), -EINVAL);
}

static void a_link_is_not_followed(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct qcow2_header header;

	(void)state;
	unlink(path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(qcow2_inspect(path, &header, &fault), -ELOOP);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(qcow2_inspect(path, &header, &fault), -EINVAL);
	unlink(path);
	assert_int_equal(qcow2_inspect(path, &header, &fault), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_header_is_read),
		cmocka_unit_test(damage_is_refused_with_its_reason),
		cmocka_unit_test(an_extension_beyond_its_cluster_is_refused),
		cmocka_unit_test(a_header_cut_anywhere_is_refused),
		cmocka_unit_test(data_is_counted_and_zeros_are_not),
		cmocka_unit_test(tables_that_lead_nowhere_are_refused),
		cmocka_unit_test(tables_that_repeat_are_bounded),
		cmocka_unit_test(a_link_is_not_followed),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
