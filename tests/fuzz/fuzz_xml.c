/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an XML-RPC request and as an answer: refused with a fault, or values that survive
 * being encoded and read again. */
#include "xmlrpc/codec.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_call(const uint8_t *data, size_t size)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *params CLEANUP_VALUE = NULL;
	char *method CLEANUP_FREE = NULL;

	int r = xml_decode_call(data, size, &codec_limits_request, &method, &params, &fault);
	if (r < 0 && (!fault.code || fault.n_params == 0 || method || params))
		abort();
	if (r < 0)
		return;
	struct buf once CLEANUP_BUF = BUF_INIT;
	struct buf twice CLEANUP_BUF = BUF_INIT;
	struct value *again CLEANUP_VALUE = NULL;
	char *name CLEANUP_FREE = NULL;
	xml_encode_call(method, params, &once);
	/* The response's limits: what is encoded anew may be longer than what came. */
	if (xml_decode_call(once.data, once.length, &codec_limits_response, &name, &again, NULL) <
		0)
		abort();
	xml_encode_call(name, again, &twice);
	if (once.length != twice.length || memcmp(once.data, twice.data, once.length) != 0)
		abort();
}

static void check_response(const uint8_t *data, size_t size)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;

	int r = xml_decode_response(data, size, &codec_limits_response, &result, &fault);
	if ((r < 0 && !fault.code) || (r == 0 && !result))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_call(data, size);
	check_response(data, size);
	return 0;
}
