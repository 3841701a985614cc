/* SPDX-License-Identifier: Apache-2.0 */
/* What every kind of endpoint must do. A program per kind opens fresh endpoints of
 * ENDPOINT_CONTRACT_BYTES and runs this list beside the tests of its own. */
#ifndef FERRY_TESTS_CONTRACT_ENDPOINT_CONTRACT_H
#define FERRY_TESTS_CONTRACT_ENDPOINT_CONTRACT_H

#include "agent/copy/endpoint.h"
#include "tests/lib/check.h"

#define CONTRACT_BYTES ((UINT64_C(8) << 20) + 512)

struct contract {
	struct endpoint_spec spec; /* of a disk of CONTRACT_BYTES that reads as zeros */
	bool keeps_data;           /* reads give back what was written */
};

/* Each takes *state as a struct contract. */
void contract_size_is_the_disks(void **state);
void contract_what_was_written_is_read(void **state);
void contract_many_requests_in_flight_all_end(void **state);
void contract_an_unaligned_request_is_refused(void **state);
void contract_a_request_beyond_the_end_is_refused(void **state);
void contract_a_write_to_a_read_only_endpoint_is_refused(void **state);
void contract_what_was_zeroed_reads_as_zeros(void **state);
void contract_a_flush_ends(void **state);
void contract_the_data_map_covers_what_was_written(void **state);
void contract_closing_ends_what_is_in_flight(void **state);
void contract_waiting_ends_at_the_deadline_or_on_wake(void **state);

#define CONTRACT_TEST(name) cmocka_unit_test_setup_teardown(contract_##name, setup, teardown)
#define CONTRACT_TESTS                                                                             \
	CONTRACT_TEST(size_is_the_disks), CONTRACT_TEST(what_was_written_is_read),                 \
		CONTRACT_TEST(many_requests_in_flight_all_end),                                    \
		CONTRACT_TEST(an_unaligned_request_is_refused),                                    \
		CONTRACT_TEST(a_request_beyond_the_end_is_refused),                                \
		CONTRACT_TEST(a_write_to_a_read_only_endpoint_is_refused),                         \
		CONTRACT_TEST(what_was_zeroed_reads_as_zeros), CONTRACT_TEST(a_flush_ends),        \
		CONTRACT_TEST(the_data_map_covers_what_was_written),                               \
		CONTRACT_TEST(closing_ends_what_is_in_flight),                                     \
		CONTRACT_TEST(waiting_ends_at_the_deadline_or_on_wake)

/* A request that counts how it ended. */
struct counted {
	struct endpoint_request request;
	unsigned n_ended;
	int error;
};

struct counted counted_new(enum endpoint_op op, uint64_t offset, uint64_t length, void *data);
/* Submits it (its address must be final) and services until it has ended; its error. */
int counted_run(struct endpoint *endpoint, struct counted *counted);
int counted_submit(struct endpoint *endpoint, struct counted *counted);
/* Fills data with bytes that depend on the seed. */
void contract_fill(void *data, size_t length, unsigned seed);

#endif
