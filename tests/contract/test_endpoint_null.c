/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/endpoint_contract.h"

static struct contract contract = {
	.spec = {.kind = ENDPOINT_NULL, .writable = true, .size_bytes = CONTRACT_BYTES},
	.keeps_data = false,
};

static int setup(void **state)
{
	*state = &contract;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {CONTRACT_TESTS};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
