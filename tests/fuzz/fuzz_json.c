/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a JSON-RPC request: refused with a fault, or parameters that survive being encoded
 * and read again. */
#include "base/json.h"
#include "xmlrpc/codec.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(
	const struct value *params, enum json_version version, const struct json_id *id)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct value *answer CLEANUP_VALUE = NULL;

	json_encode_success(params, version, id, &text);
	if (json_decode(text.data, text.length, NULL, &answer, NULL) < 0 ||
		!value_equal(value_find(answer, "result"), params))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *params CLEANUP_VALUE = NULL;
	char *method CLEANUP_FREE = NULL;
	enum json_version version;
	struct json_id id = {0};

	int r = json_decode_call(
		data, size, &codec_limits_request, &method, &params, &version, &id, &fault);
	if (r < 0 && (!fault.code || fault.n_params == 0 || method || params))
		abort();
	if (r == 0)
		check_round_trip(params, version, &id);
	json_id_clear(&id);
	return 0;
}
