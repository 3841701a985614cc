/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/ova_file.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "xmlrpc/codec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMBER      "ova.xml"
#define BLOCK_BYTES 512

/* POSIX.1-2017, pax, "ustar Interchange Format"; numbers are octal text. */
struct header {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char checksum[8];
	char type;
	char link[100];
	char magic[6];
	char version[2];
	char user[32];
	char group[32];
	char major[8];
	char minor[8];
	char prefix[155];
	char padding[12];
};

_Static_assert(sizeof(struct header) == BLOCK_BYTES, "a header is a block");

/* Of all bytes, with blanks in the place of the sum itself. */
static unsigned sum_of(const struct header *header)
{
	struct header copy = *header;
	const unsigned char *bytes = (const unsigned char *)&copy;
	unsigned sum = 0;

	memset(copy.checksum, ' ', sizeof(copy.checksum));
	for (size_t i = 0; i < sizeof(copy); i++)
		sum += bytes[i];
	return sum;
}

int ova_file_write(const struct value *document, struct buf *out, struct fault *fault)
{
	char *text CLEANUP_FREE = xml_encode_fragment(document);
	size_t length = strlen(text);
	struct header header = {.type = '0'};
	static const char zeros[2 * BLOCK_BYTES];

	if (length > OVA_MAX_BYTES - 4 * BLOCK_BYTES)
		return fault_set(fault, -EFBIG, "IMPORT_ERROR",
			"the document would be larger than the 4 MiB that can be read again: "
			"export fewer VMs at once",
			NULL);
	snprintf(header.name, sizeof(header.name), MEMBER);
	snprintf(header.mode, sizeof(header.mode), "%07o", 0644u);
	snprintf(header.uid, sizeof(header.uid), "%07o", 0u);
	snprintf(header.gid, sizeof(header.gid), "%07o", 0u);
	snprintf(header.size, sizeof(header.size), "%011zo", length);
	snprintf(header.mtime, sizeof(header.mtime), "%011" PRIo64, (uint64_t)clock_wall_sec());
	memcpy(header.magic, "ustar", 6);
	memcpy(header.version, "00", 2);
	snprintf(header.checksum, sizeof(header.checksum), "%06o", sum_of(&header));
	header.checksum[7] = ' ';
	buf_append(out, &header, sizeof(header));
	buf_append(out, text, length);
	buf_append(out, zeros, (BLOCK_BYTES - length % BLOCK_BYTES) % BLOCK_BYTES);
	buf_append(out, zeros, sizeof(zeros));
	return 0;
}

static int bad(struct fault *fault, const char *text)
{
	return fault_set(fault, -EBADMSG, "IMPORT_ERROR", text, NULL);
}

/* Blanks or a NUL end it, blanks may stand before. */
static int read_octal(const char *field, size_t size, uint64_t *ret_number)
{
	char *text CLEANUP_FREE = xstrndup(field, size);
	const char *at = text + strspn(text, " ");
	size_t n = strspn(at, "01234567");

	if (!n || n > 11 || at[n + strspn(at + n, " ")] != '\0')
		return -EINVAL;
	*ret_number = strtoull(at, NULL, 8);
	return 0;
}

static int check_header(const struct header *header, uint64_t *ret_length, struct fault *fault)
{
	uint64_t sum;

	if (read_octal(header->checksum, sizeof(header->checksum), &sum) < 0 ||
		sum != sum_of(header))
		return bad(fault, "this is no tar file: its first header has a wrong checksum");
	if (read_octal(header->size, sizeof(header->size), ret_length) < 0)
		return bad(fault, "tar: the size of the first member is no octal number");
	char *name CLEANUP_FREE = xstrndup(header->name, sizeof(header->name));
	for (char *c = name; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	if (strcmp(name, MEMBER) != 0 || (header->type != '0' && header->type != '\0'))
		return fault_set(
			fault, -EBADMSG, "IMPORT_ERROR_UNEXPECTED_FILE", MEMBER, name, NULL);
	return 0;
}

int ova_file_read(const struct buf *file, struct value **ret_document, struct fault *fault)
{
	const struct codec_limits limits = {
		.max_bytes = OVA_MAX_BYTES,
		.max_depth = 16,
		.max_values = OVA_MAX_VALUES,
	};
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct header header;
	uint64_t length = 0;

	if (file->length < sizeof(header))
		return bad(fault, "this is no tar file: it is shorter than a header");
	memcpy(&header, file->data, sizeof(header));
	int r = check_header(&header, &length, fault);
	if (r < 0)
		return r;
	if (length > file->length - sizeof(header))
		return bad(fault, "tar: ova.xml is longer than the file");
	r = xml_decode_fragment(
		file->data + sizeof(header), (size_t)length, &limits, ret_document, &why);
	if (r == 0)
		return 0;
	char *cause CLEANUP_FREE = fault_describe(&why);
	char *text CLEANUP_FREE = xasprintf("ova.xml: %s", cause);
	return bad(fault, text);
}
