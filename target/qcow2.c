/* SPDX-License-Identifier: Apache-2.0 */
#include "target/qcow2.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC        0x514649fb /* "QFI\xfb" */
#define V2_LENGTH    72
#define V3_LENGTH    104
#define SECTOR       512
#define CLUSTER_MIN  9
#define CLUSTER_MAX  21
#define MAX_L1_BYTES (UINT64_C(32) << 20) /* QEMU's own limits */
#define MAX_RT_BYTES (UINT64_C(8) << 20)

enum incompatible_bit {
	INCOMPATIBLE_DIRTY = 1 << 0, /* refcounts are not up to date: QEMU mends them */
	INCOMPATIBLE_CORRUPT = 1 << 1,
	INCOMPATIBLE_DATA_FILE = 1 << 2,
	INCOMPATIBLE_COMPRESSION = 1 << 3,
	INCOMPATIBLE_EXTENDED_L2 = 1 << 4,
	INCOMPATIBLE_KNOWN = (1 << 5) - 1,
};

enum extension {
	EXTENSION_END = 0,
	EXTENSION_DATA_FILE = 0x44415441,
	EXTENSION_ENCRYPTION = 0x0537be77,
};

#define ENTRY_OFFSET     UINT64_C(0x00fffffffffffe00)
#define ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define ENTRY_ZERO       UINT64_C(1)

/* --- The header ---------------------------------------------------------------------------------
 */

struct reading {
	const unsigned char *data;
	size_t length;
	uint64_t file_bytes;
	struct qcow2_header *header;
};

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const unsigned char *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

/* What leads out of the image, or is not to be had without a key. */
static int check_alone(const struct reading *reading, struct fault *fault)
{
	uint64_t incompatible = reading->header->version >= 3 ? get64(reading->data + 72) : 0;

	if (get64(reading->data + 8) != 0)
		return fault_text(fault, -EINVAL,
			"it has a backing file, and an image must stand alone; qemu-img convert "
			"makes one that does");
	if (incompatible & INCOMPATIBLE_DATA_FILE)
		return fault_text(fault, -EINVAL,
			"it keeps its data in an external data file, and an image must stand "
			"alone; qemu-img convert makes one that does");
	if (get32(reading->data + 32) != 0)
		return fault_text(fault, -EINVAL,
			"it is encrypted (method %" PRIu32 "), which is not supported",
			get32(reading->data + 32));
	if (incompatible & INCOMPATIBLE_CORRUPT)
		return fault_text(fault, -EINVAL,
			"it is marked as corrupt; qemu-img check -r all may repair it");
	if (incompatible & ~(uint64_t)INCOMPATIBLE_KNOWN)
		return fault_text(fault, -EINVAL,
			"it uses features that are not known here (0x%" PRIx64 ")",
			incompatible & ~(uint64_t)INCOMPATIBLE_KNOWN);
	if (get32(reading->data + 60) != 0)
		return fault_text(fault, -EINVAL,
			"it has %" PRIu32 " internal snapshots, which would be lost; qemu-img "
			"snapshot -d deletes them",
			get32(reading->data + 60));
	reading->header->extended_l2 = incompatible & INCOMPATIBLE_EXTENDED_L2;
	return 0;
}

static int check_extensions(const struct reading *reading, size_t at, struct fault *fault)
{
	uint64_t end = MIN(UINT64_C(1) << reading->header->cluster_bits, reading->file_bytes);

	while (at + 8 <= end) {
		if (at + 8 > reading->length)
			return fault_text(fault, -EINVAL,
				"its header extensions are longer than %d bytes", QCOW2_HEADER_MAX);
		uint32_t type = get32(reading->data + at);
		uint64_t length = get32(reading->data + at + 4);
		if (type == EXTENSION_END)
			return 0;
		if (type == EXTENSION_DATA_FILE || type == EXTENSION_ENCRYPTION)
			return fault_text(fault, -EINVAL,
				"its header names %s, and an image must stand alone; qemu-img "
				"convert makes one that does",
				type == EXTENSION_DATA_FILE ? "an external data file"
							    : "an encryption header");
		if (length > end - at - 8)
			return fault_text(fault, -EINVAL,
				"its header extension 0x%" PRIx32 " reaches beyond its first "
				"cluster",
				type);
		at += 8 + (size_t)((length + 7) / 8 * 8);
	}
	return 0;
}

static int check_table(const struct reading *reading, const char *name, uint64_t offset,
	uint64_t bytes, uint64_t max_bytes, struct fault *fault)
{
	uint64_t cluster = UINT64_C(1) << reading->header->cluster_bits;

	if (bytes == 0 || bytes > max_bytes)
		return fault_text(fault, -EINVAL,
			"its %s has %" PRIu64 " bytes; 1 to %" PRIu64 " are possible", name, bytes,
			max_bytes);
	if (offset == 0 || offset % cluster)
		return fault_text(fault, -EINVAL,
			"its %s lies at %" PRIu64 ", which is not the start of a cluster", name,
			offset);
	if (offset > reading->file_bytes || bytes > reading->file_bytes - offset)
		return fault_text(fault, -EINVAL,
			"its %s lies beyond the end of the file, which has %" PRIu64
			" bytes: it was cut short",
			name, reading->file_bytes);
	return 0;
}

static int check_size(const struct reading *reading, struct fault *fault)
{
	const struct qcow2_header *header = reading->header;
	unsigned l2_bits = header->cluster_bits - (header->extended_l2 ? 4 : 3);
	unsigned covered_bits = header->cluster_bits + l2_bits; /* by one entry of the L1 table */
	uint64_t size = header->virtual_bytes;

	if (size == 0 || size % SECTOR || size > INT64_MAX)
		return fault_text(fault, -EINVAL,
			"its disk has %" PRIu64 " bytes; a disk has one or more whole sectors of "
			"%d",
			size, SECTOR);
	if ((size - 1) >> covered_bits >= header->l1_entries)
		return fault_text(fault, -EINVAL,
			"its disk has %" PRIu64 " bytes, and its L1 table of %" PRIu32
			" entries covers fewer",
			size, header->l1_entries);
	return 0;
}

/* Fields that version 3 added; *ret_length is where the extensions begin. */
static int parse_version3(const struct reading *reading, size_t *ret_length, struct fault *fault)
{
	if (reading->length < V3_LENGTH)
		return fault_text(fault, -EINVAL, "its header is cut short");
	uint32_t length = get32(reading->data + 100);
	uint32_t refcount_order = get32(reading->data + 96);

	if (length < V3_LENGTH || length % 8 || length > reading->length ||
		length > UINT64_C(1) << reading->header->cluster_bits)
		return fault_text(fault, -EINVAL,
			"its header says it has %" PRIu32
			" bytes, which is no possible length, or it is cut short",
			length);
	if (refcount_order > 6)
		return fault_text(fault, -EINVAL,
			"its reference counts have 2^%" PRIu32 " bits; at most 64 are possible",
			refcount_order);
	*ret_length = length;
	return 0;
}

static int check_tables(const struct reading *reading, struct fault *fault)
{
	struct qcow2_header *header = reading->header;
	uint64_t refcount_bytes = (uint64_t)get32(reading->data + 56) << header->cluster_bits;

	header->virtual_bytes = get64(reading->data + 24);
	header->l1_entries = get32(reading->data + 36);
	header->l1_offset = get64(reading->data + 40);
	int r = check_size(reading, fault);
	if (r == 0)
		r = check_table(reading, "L1 table", header->l1_offset,
			(uint64_t)header->l1_entries * 8, MAX_L1_BYTES, fault);
	if (r == 0)
		r = check_table(reading, "refcount table", get64(reading->data + 48),
			refcount_bytes, MAX_RT_BYTES, fault);
	return r;
}

int qcow2_parse(const void *data, size_t length, uint64_t file_bytes,
	struct qcow2_header *ret_header, struct fault *fault)
{
	struct qcow2_header header = {0};
	const struct reading reading = {data, length, file_bytes, &header};
	size_t extensions = V2_LENGTH;
	int r = 0;

	if (length < V2_LENGTH)
		return fault_text(fault, -EINVAL,
			"it has %zu bytes, fewer than a qcow2 header: it was cut short", length);
	if (get32(reading.data) != MAGIC)
		return fault_text(fault, -EINVAL, "it is no qcow2 image, though its name says so");
	header.version = get32(reading.data + 4);
	if (header.version != 2 && header.version != 3)
		return fault_text(
			fault, -EINVAL, "it is of version %u; 2 and 3 are known", header.version);
	header.cluster_bits = get32(reading.data + 20);
	if (header.cluster_bits < CLUSTER_MIN || header.cluster_bits > CLUSTER_MAX)
		return fault_text(fault, -EINVAL,
			"its clusters have 2^%u bytes; 2^%d to 2^%d are possible",
			header.cluster_bits, CLUSTER_MIN, CLUSTER_MAX);
	if (header.version == 3)
		r = parse_version3(&reading, &extensions, fault);
	if (r == 0)
		r = check_alone(&reading, fault);
	if (r == 0)
		r = check_extensions(&reading, extensions, fault);
	if (r == 0)
		r = check_tables(&reading, fault);
	if (r == 0)
		*ret_header = header;
	return r;
}

/* --- The file -----------------------------------------------------------------------------------
 */

/* Opens and parses. The caller closes *ret_fd. */
static int open_image(const char *path, int *ret_fd, uint64_t *ret_file_bytes,
	struct qcow2_header *ret_header, struct fault *fault)
{
	unsigned char *data CLEANUP_FREE = malloc(QCOW2_HEADER_MAX);
	/* O_NONBLOCK: opening something that is not a file must not wait for its other end. */
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (!data)
		return fault_errno(fault, -ENOMEM, "image %s", path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fault_errno(fault, -errno, "image %s", path);
	if (!S_ISREG(st.st_mode))
		return fault_text(fault, -EINVAL, "it is not a regular file");
	size_t length = (size_t)MIN((uint64_t)st.st_size, QCOW2_HEADER_MAX);
	int r = io_pread_full(fd, data, length, 0);
	if (r < 0)
		return fault_errno(fault, r, "image %s: read its header", path);
	r = qcow2_parse(data, length, (uint64_t)st.st_size, ret_header, fault);
	if (r < 0)
		return r;
	*ret_file_bytes = (uint64_t)st.st_size;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int qcow2_inspect(const char *path, struct qcow2_header *ret_header, struct fault *fault)
{
	int fd CLEANUP_CLOSE = -1;
	uint64_t file_bytes;

	return open_image(path, &fd, &file_bytes, ret_header, fault);
}

/* --- The tables ---------------------------------------------------------------------------------
 */

struct walk {
	int fd;
	const struct qcow2_header *header;
	uint64_t cluster;
	uint64_t file_bytes;
	uint64_t n_tables_left; /* as many as the file has room for */
	unsigned char *table;   /* one cluster */
	uint64_t data_bytes;
};

static uint64_t entry_data_bytes(const struct walk *walk, const unsigned char *entry)
{
	uint64_t value = get64(entry);

	if (value & ENTRY_COMPRESSED)
		return walk->cluster;
	if (!(value & ENTRY_OFFSET))
		return 0;
	/* The lower half of the second word has a bit for each of 32 subclusters. */
	if (walk->header->extended_l2)
		return walk->cluster / 32 * (unsigned)__builtin_popcount(get32(entry + 12));
	return walk->header->version >= 3 && (value & ENTRY_ZERO) ? 0 : walk->cluster;
}

/* A guest may be writing to it, and the file grow under the walk. */
static bool is_in_file(struct walk *walk, uint64_t offset)
{
	struct stat st;

	if (offset <= walk->file_bytes && walk->cluster <= walk->file_bytes - offset)
		return true;
	if (fstat(walk->fd, &st) < 0 || (uint64_t)st.st_size <= walk->file_bytes)
		return false;
	walk->n_tables_left += ((uint64_t)st.st_size - walk->file_bytes) / walk->cluster;
	walk->file_bytes = (uint64_t)st.st_size;
	return offset <= walk->file_bytes && walk->cluster <= walk->file_bytes - offset;
}

static int add_table(struct walk *walk, uint64_t offset, struct fault *fault)
{
	size_t step = walk->header->extended_l2 ? 16 : 8;

	if (offset % walk->cluster || !is_in_file(walk, offset) || walk->n_tables_left == 0)
		return fault_text(fault, -EINVAL,
			"its L1 table leads to %" PRIu64 ", where no L2 table can be: qemu-img "
			"check says more",
			offset);
	walk->n_tables_left--;
	int r = io_pread_full(walk->fd, walk->table, walk->cluster, offset);
	if (r < 0)
		return fault_errno(fault, r, "its L2 table at %" PRIu64, offset);
	for (size_t at = 0; at + step <= walk->cluster; at += step)
		walk->data_bytes += entry_data_bytes(walk, walk->table + at);
	return 0;
}

static int walk_tables(struct walk *walk, struct fault *fault)
{
	const struct qcow2_header *header = walk->header;
	unsigned char entries[4096];

	for (uint64_t done = 0; done < header->l1_entries;) {
		uint64_t n = MIN(header->l1_entries - done, sizeof(entries) / 8);
		int r = io_pread_full(walk->fd, entries, n * 8, header->l1_offset + done * 8);
		if (r < 0)
			return fault_errno(fault, r, "its L1 table");
		for (uint64_t i = 0; r == 0 && i < n; i++) {
			uint64_t offset = get64(entries + i * 8) & ENTRY_OFFSET;
			if (offset)
				r = add_table(walk, offset, fault);
		}
		if (r < 0)
			return r;
		done += n;
	}
	return 0;
}

int qcow2_data_bytes(const char *path, uint64_t *ret_bytes, struct fault *fault)
{
	struct qcow2_header header;
	int fd CLEANUP_CLOSE = -1;
	uint64_t file_bytes = 0;
	int r = open_image(path, &fd, &file_bytes, &header, fault);

	if (r < 0)
		return r;
	uint64_t cluster = UINT64_C(1) << header.cluster_bits;
	unsigned char *table CLEANUP_FREE = malloc(cluster);
	if (!table)
		return fault_errno(fault, -ENOMEM, "image %s", path);
	struct walk walk = {
		.fd = fd,
		.header = &header,
		.cluster = cluster,
		.file_bytes = file_bytes,
		.n_tables_left = file_bytes >> header.cluster_bits,
		.table = table,
	};
	r = walk_tables(&walk, fault);
	if (r == 0)
		*ret_bytes = MIN(walk.data_bytes, header.virtual_bytes);
	return r;
}
