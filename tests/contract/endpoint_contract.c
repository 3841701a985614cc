/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/endpoint_contract.h"

#include "agent/copy/zero.h"
#include "base/clock.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BLOCK   ((size_t)64 << 10)
#define N_MANY  64
#define TIMEOUT (10 * USEC_PER_SEC)

static void count(struct endpoint_request *request, int error)
{
	struct counted *counted = request->arg;

	counted->n_ended++;
	counted->error = error;
}

struct counted counted_new(enum endpoint_op op, uint64_t offset, uint64_t length, void *data)
{
	return (struct counted){
		.request = {.op = op, .extent = {offset, length}, .data = data, .done = count}};
}

int counted_submit(struct endpoint *endpoint, struct counted *counted)
{
	counted->request.arg = counted;
	return endpoint_submit(endpoint, &counted->request);
}

int counted_run(struct endpoint *endpoint, struct counted *counted)
{
	uint64_t deadline = clock_deadline(TIMEOUT);
	int r = counted_submit(endpoint, counted);

	while (r == 0 && !counted->n_ended)
		r = endpoint_service(endpoint, deadline, NULL);
	if (r == 0)
		assert_int_equal(counted->n_ended, 1);
	return r < 0 ? r : counted->error;
}

void contract_fill(void *data, size_t length, unsigned seed)
{
	unsigned char *bytes = data;
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < length; i++) {
		x = x * 1664525u + 1013904223u;
		bytes[i] = (unsigned char)(x >> 24);
	}
}

static struct endpoint *open_it(const struct contract *contract)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint = NULL;

	check_ok(&fault, endpoint_open(&contract->spec, NULL, &endpoint, &fault));
	return endpoint;
}

static int run(struct endpoint *endpoint, enum endpoint_op op, uint64_t offset, uint64_t length,
	void *data)
{
	struct counted counted = counted_new(op, offset, length, data);

	return counted_run(endpoint, &counted);
}

void contract_size_is_the_disks(void **state)
{
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(*state);

	assert_int_equal(endpoint_size(endpoint), CONTRACT_BYTES);
	assert_int_equal(endpoint_in_flight(endpoint), 0);
	assert_string_equal(endpoint_error(endpoint), "");
}

void contract_what_was_written_is_read(void **state)
{
	static const struct extent places[] = {{0, 512}, {4096, ENDPOINT_MAX_BYTES},
		{(3 << 20) + 512, 1024}, {CONTRACT_BYTES - 512, 512}};
	const struct contract *contract = *state;
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(contract);
	void *written CLEANUP_FREE = malloc(ENDPOINT_MAX_BYTES);
	void *read CLEANUP_FREE = malloc(ENDPOINT_MAX_BYTES);

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		contract_fill(written, places[i].length, (unsigned)i);
		assert_int_equal(
			run(endpoint, ENDPOINT_WRITE, places[i].offset, places[i].length, written),
			0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		contract_fill(written, places[i].length, (unsigned)i);
		memset(read, 0xee, ENDPOINT_MAX_BYTES);
		assert_int_equal(
			run(endpoint, ENDPOINT_READ, places[i].offset, places[i].length, read), 0);
		if (contract->keeps_data)
			assert_memory_equal(read, written, places[i].length);
		else
			assert_true(zero_is_all(read, places[i].length));
	}
	assert_int_equal(run(endpoint, ENDPOINT_READ, 2048, 512, read), 0);
	assert_true(zero_is_all(read, 512));
}

void contract_many_requests_in_flight_all_end(void **state)
{
	const struct contract *contract = *state;
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(contract);
	unsigned char *data CLEANUP_FREE = malloc(N_MANY * BLOCK);
	unsigned char *read CLEANUP_FREE = malloc(BLOCK);
	struct counted many[N_MANY];
	uint64_t deadline = clock_deadline(TIMEOUT);

	contract_fill(data, N_MANY * BLOCK, 7);
	for (size_t i = 0; i < N_MANY; i++) {
		size_t at = (i * 37 % N_MANY) * BLOCK;
		many[i] = counted_new(ENDPOINT_WRITE, at, BLOCK, data + at);
		assert_int_equal(counted_submit(endpoint, &many[i]), 0);
	}
	while (endpoint_in_flight(endpoint))
		assert_int_equal(endpoint_service(endpoint, deadline, NULL), 0);
	for (size_t i = 0; i < N_MANY; i++) {
		assert_int_equal(many[i].n_ended, 1);
		assert_int_equal(many[i].error, 0);
	}
	for (size_t i = 0; contract->keeps_data && i < N_MANY; i++) {
		assert_int_equal(run(endpoint, ENDPOINT_READ, i * BLOCK, BLOCK, read), 0);
		assert_memory_equal(read, data + i * BLOCK, BLOCK);
	}
}

void contract_an_unaligned_request_is_refused(void **state)
{
	static const struct extent bad[] = {
		{1, 512}, {0, 511}, {0, 0}, {512, 700}, {0, ENDPOINT_MAX_BYTES + 512}};
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(*state);
	void *data CLEANUP_FREE = calloc(1, ENDPOINT_MAX_BYTES + 512);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct counted counted =
			counted_new(ENDPOINT_WRITE, bad[i].offset, bad[i].length, data);
		assert_int_equal(counted_submit(endpoint, &counted), -EINVAL);
		assert_int_equal(counted.n_ended, 0);
		assert_string_not_equal(endpoint_error(endpoint), "");
	}
	assert_int_equal(run(endpoint, ENDPOINT_WRITE, 0, 512, data), 0);
}

void contract_a_request_beyond_the_end_is_refused(void **state)
{
	static const struct extent bad[] = {{CONTRACT_BYTES, 512}, {CONTRACT_BYTES - 512, 1024},
		{UINT64_MAX - 511, 512}, {UINT64_MAX / 1024 * 1024, 1024}};
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(*state);
	char data[1024] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(
			run(endpoint, ENDPOINT_READ, bad[i].offset, bad[i].length, data), -ERANGE);
		assert_int_equal(
			run(endpoint, ENDPOINT_ZERO, bad[i].offset, bad[i].length, NULL), -ERANGE);
	}
}

void contract_a_write_to_a_read_only_endpoint_is_refused(void **state)
{
	struct contract contract = *(struct contract *)*state;
	char data[512] = {0};

	contract.spec.writable = false;
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(&contract);
	assert_int_equal(run(endpoint, ENDPOINT_WRITE, 0, 512, data), -EROFS);
	assert_int_equal(run(endpoint, ENDPOINT_DISCARD, 0, 512, NULL), -EROFS);
	assert_int_equal(run(endpoint, ENDPOINT_READ, 0, 512, data), 0);
}

void contract_what_was_zeroed_reads_as_zeros(void **state)
{
	static const enum endpoint_op ops[] = {ENDPOINT_ZERO, ENDPOINT_DISCARD};
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(*state);
	const struct contract *contract = *state;
	unsigned char *data CLEANUP_FREE = malloc(ENDPOINT_MAX_BYTES);
	unsigned char *read CLEANUP_FREE = malloc(ENDPOINT_MAX_BYTES);

	contract_fill(data, ENDPOINT_MAX_BYTES, 3);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		size_t from = 512 + i * 4096, length = ENDPOINT_MAX_BYTES - 8192;
		assert_int_equal(run(endpoint, ENDPOINT_WRITE, 0, ENDPOINT_MAX_BYTES, data), 0);
		assert_int_equal(run(endpoint, ops[i], from, length, NULL), 0);
		assert_int_equal(run(endpoint, ENDPOINT_READ, 0, ENDPOINT_MAX_BYTES, read), 0);
		assert_true(zero_is_all(read + from, length));
		if (!contract->keeps_data)
			continue;
		assert_memory_equal(read, data, from);
		assert_memory_equal(read + from + length, data + from + length,
			ENDPOINT_MAX_BYTES - from - length);
	}
	/* The whole disk in one request. */
	assert_int_equal(run(endpoint, ENDPOINT_ZERO, 0, CONTRACT_BYTES, NULL), 0);
	assert_int_equal(run(endpoint, ENDPOINT_READ, 0, ENDPOINT_MAX_BYTES, read), 0);
	assert_true(zero_is_all(read, ENDPOINT_MAX_BYTES));
}

void contract_a_flush_ends(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(*state);
	char data[512] = {1};

	assert_int_equal(run(endpoint, ENDPOINT_WRITE, 512, 512, data), 0);
	assert_int_equal(run(endpoint, ENDPOINT_FLUSH, 0, 0, NULL), 0);
	check_ok(&fault, endpoint_flush(endpoint, NULL, &fault));
}

void contract_the_data_map_covers_what_was_written(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const struct contract *contract = *state;
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(contract);
	uint64_t at = 0, place = 5 << 20;
	char data[512] = {1};
	bool covered = false;

	assert_int_equal(run(endpoint, ENDPOINT_WRITE, place, 512, data), 0);
	for (int i = 0; i < 1000; i++) {
		struct extent run_found;
		check_ok(&fault, endpoint_next_data(endpoint, at, &run_found, &fault));
		if (run_found.length == 0)
			break;
		assert_true(run_found.offset >= at);
		assert_int_equal(run_found.offset % 512 + run_found.length % 512, 0);
		assert_true(run_found.offset + run_found.length <= CONTRACT_BYTES);
		covered |= run_found.offset <= place &&
			   place + 512 <= run_found.offset + run_found.length;
		at = run_found.offset + run_found.length;
	}
	assert_int_equal(covered, contract->keeps_data);
	struct extent around = {place - 512, 2048};
	uint64_t first = 0;
	check_ok(&fault, endpoint_first_data(endpoint, around, &first, &fault));
	assert_in_range(first, around.offset, contract->keeps_data ? place : place + 1536);
}

void contract_closing_ends_what_is_in_flight(void **state)
{
	struct endpoint *endpoint = open_it(*state);
	unsigned char *data CLEANUP_FREE = malloc(BLOCK);
	struct counted many[N_MANY];

	contract_fill(data, BLOCK, 9);
	for (size_t i = 0; i < N_MANY; i++) {
		many[i] = counted_new(ENDPOINT_WRITE, i * BLOCK, BLOCK, data);
		assert_int_equal(counted_submit(endpoint, &many[i]), 0);
	}
	endpoint_close(endpoint);
	for (size_t i = 0; i < N_MANY; i++) {
		assert_int_equal(many[i].n_ended, 1);
		assert_true(many[i].error == 0 || many[i].error == -ECANCELED);
	}
}

void contract_waiting_ends_at_the_deadline_or_on_wake(void **state)
{
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(*state);
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	int wake CLEANUP_CLOSE = eventfd(0, EFD_CLOEXEC);
	uint64_t before = clock_now_usec();

	assert_int_equal(endpoint_wait(endpoint, wake, before + 30000, cancel), -ETIMEDOUT);
	assert_true(clock_now_usec() >= before + 30000);
	assert_int_equal(write(wake, &(uint64_t){1}, 8), 8);
	assert_int_equal(endpoint_wait(endpoint, wake, USEC_FOREVER, cancel), 0);
	cancel_request(cancel, "enough");
	assert_int_equal(endpoint_wait(endpoint, -1, USEC_FOREVER, cancel), -ECANCELED);
}
