/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the header of a qcow2 image: refused with a text, or a header of which everything
 * that follows may be believed. */
#include "target/qcow2.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size, uint64_t file_bytes)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct qcow2_header header;
	int r = qcow2_parse(data, size, file_bytes, &header, &fault);

	if (r < 0) {
		if (!fault.n_params || !fault.params[0][0])
			abort();
		return;
	}
	uint64_t l1_bytes = (uint64_t)header.l1_entries * 8;
	if (header.cluster_bits < 9 || header.cluster_bits > 21 || !header.virtual_bytes ||
		header.virtual_bytes % 512 || header.virtual_bytes > INT64_MAX ||
		header.l1_offset % (UINT64_C(1) << header.cluster_bits) ||
		header.l1_offset > file_bytes || l1_bytes > file_bytes - header.l1_offset)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > QCOW2_HEADER_MAX)
		return 0;
	check(data, size, size);
	check(data, size, UINT64_C(1) << 40);
	return 0;
}
