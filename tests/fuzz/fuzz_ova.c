/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a file of VMs' metadata: refused with a fault, or a document that survives being
 * written and read again. */
#include "agent/api/ova_file.h"

#include "xmlrpc/codec.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a tar's header. */
#define BLOCK_BYTES    512
#define CHECKSUM_AT    148
#define CHECKSUM_BYTES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An int comes back as the text that it is written as: what is compared is text. */
static void check_again(const struct value *document)
{
	struct buf file CLEANUP_BUF = BUF_INIT;
	struct value *again CLEANUP_VALUE = NULL;
	char *once CLEANUP_FREE = xml_encode_fragment(document);

	/* What is encoded anew may be longer than what came. */
	if (ova_file_write(document, &file, NULL) < 0)
		return;
	if (ova_file_read(&file, &again, NULL) < 0)
		abort();
	char *twice CLEANUP_FREE = xml_encode_fragment(again);
	if (strcmp(once, twice) != 0)
		abort();
}

static void check_file(const struct buf *file)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *document CLEANUP_VALUE = NULL;

	int r = ova_file_read(file, &document, &fault);
	if ((r < 0 && (!fault.code || document)) || (r == 0 && !document))
		abort();
	if (r == 0)
		check_again(document);
}

/* Or nearly all would end at the checksum of the header. */
static void mend_checksum(struct buf *file)
{
	unsigned sum = 0;

	memset(file->data + CHECKSUM_AT, ' ', CHECKSUM_BYTES);
	for (size_t i = 0; i < BLOCK_BYTES; i++)
		sum += (unsigned char)file->data[i];
	snprintf(file->data + CHECKSUM_AT, CHECKSUM_BYTES, "%06o", sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf file CLEANUP_BUF = BUF_INIT;

	buf_append(&file, data, size);
	check_file(&file);
	if (size < BLOCK_BYTES)
		return 0;
	mend_checksum(&file);
	check_file(&file);
	return 0;
}
