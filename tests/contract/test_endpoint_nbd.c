/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/endpoint_contract.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/lib/nbd.h"

#include <errno.h>
#include <signal.h>

#define BLOCK  ((size_t)256 << 10)
#define N_MANY 16

static struct nbd_fixture nbd;
static struct contract contract = {.keeps_data = true};

static int begin(void **state, const char *format)
{
	nbd_start(&nbd, format, CONTRACT_BYTES);
	contract.spec = nbd_spec(&nbd);
	*state = &contract;
	return 0;
}

static int setup_raw(void **state)
{
	return begin(state, "raw");
}

static int setup_qcow2(void **state)
{
	return begin(state, "qcow2");
}

static int teardown(void **state)
{
	(void)state;
	nbd_stop(&nbd);
	return 0;
}

static struct endpoint *open_it(const struct endpoint_spec *spec)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint = NULL;

	check_ok(&fault, endpoint_open(spec, NULL, &endpoint, &fault));
	return endpoint;
}

static int try_open(const struct endpoint_spec *spec, const char *expected_text)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	int r = endpoint_open(spec, NULL, &endpoint, &fault);

	if (r < 0 && !strstr(fault.params[0], expected_text))
		fail_msg("\"%s\" does not say \"%s\"", fault.params[0], expected_text);
	return r;
}

static void what_is_not_there_says_so(void **state)
{
	struct endpoint_spec spec = contract.spec;

	(void)state;
	spec.export_name = "other";
	assert_int_equal(try_open(&spec, "NBD export other"), -ENOENT);
	spec = contract.spec;
	spec.socket_path = "/nonexistent/nbd";
	assert_int_equal(try_open(&spec, "/nonexistent/nbd"), -ENOENT);
	spec = contract.spec;
	spec.size_bytes = CONTRACT_BYTES + 512;
	assert_int_equal(try_open(&spec, "expected"), -EIO);
	nbd_kill(&nbd);
	assert_int_equal(try_open(&contract.spec, nbd.socket), -ECONNREFUSED);
}

/* What the guest wrote after the first question must be in the second answer. */
static void the_map_is_asked_for_anew(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint *reader CLEANUP_ENDPOINT = open_it(&contract.spec);
	struct endpoint *writer CLEANUP_ENDPOINT = open_it(&contract.spec);
	struct extent found;
	char data[512] = {1};

	(void)state;
	check_ok(&fault, endpoint_next_data(reader, 0, &found, &fault));
	assert_int_equal(found.length, 0);
	assert_int_equal(found.offset, CONTRACT_BYTES);
	struct counted write = counted_new(ENDPOINT_WRITE, 7 << 20, 512, data);
	assert_int_equal(counted_run(writer, &write), 0);
	check_ok(&fault, endpoint_next_data(reader, 4096, &found, &fault));
	assert_true(found.length && found.offset <= 7 << 20);
	assert_true(found.offset + found.length >= (7 << 20) + 512);
	check_ok(&fault, endpoint_next_data(reader, CONTRACT_BYTES, &found, &fault));
	assert_int_equal(found.length, 0);
}

/* A hole far longer than what is asked about at once. */
static void data_behind_a_long_hole_is_found(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t size = UINT64_C(20) << 30, place = size - 512;
	struct extent found;
	char data[512] = {1};

	(void)state;
	nbd_stop(&nbd);
	nbd_start(&nbd, "qcow2", size);
	contract.spec = nbd_spec(&nbd);
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(&contract.spec);
	struct counted write = counted_new(ENDPOINT_WRITE, place, 512, data);
	assert_int_equal(counted_run(endpoint, &write), 0);
	check_ok(&fault, endpoint_next_data(endpoint, 0, &found, &fault));
	assert_true(found.length && found.offset <= place && found.offset > size - (1 << 20));
	assert_int_equal(found.offset + found.length, size);
	/* In pieces: the protocol has 32 bits for a length. */
	struct counted zero = counted_new(ENDPOINT_ZERO, 0, size, NULL);
	assert_int_equal(counted_run(endpoint, &zero), 0);
	check_ok(&fault, endpoint_next_data(endpoint, 0, &found, &fault));
	assert_int_equal(found.length, 0);
}

/* Opens, freezes the server and submits reads of which none can end. */
static struct endpoint *stuck_endpoint(
	const struct endpoint_spec *spec, struct counted *many, void *data)
{
	struct endpoint *endpoint = open_it(spec);

	nbd_signal(&nbd, SIGSTOP);
	for (size_t i = 0; i < N_MANY; i++) {
		many[i] = counted_new(ENDPOINT_READ, i * BLOCK, BLOCK, data);
		assert_int_equal(counted_submit(endpoint, &many[i]), 0);
	}
	return endpoint;
}

static void check_all_ended(const struct counted *many, int error)
{
	for (size_t i = 0; i < N_MANY; i++) {
		assert_int_equal(many[i].n_ended, 1);
		assert_int_equal(many[i].error, error);
	}
}

static void a_frozen_server_times_out_all(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint_spec spec = contract.spec;
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];
	struct extent found;

	(void)state;
	spec.timeout_usec = 300 * USEC_PER_MSEC;
	struct endpoint *endpoint CLEANUP_ENDPOINT = stuck_endpoint(&spec, many, data);
	assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, NULL), 0);
	check_all_ended(many, -ETIMEDOUT);
	struct counted late = counted_new(ENDPOINT_READ, 0, 512, data);
	assert_int_equal(counted_submit(endpoint, &late), -ETIMEDOUT);
	check_fault(&fault, "INTERNAL_ERROR", endpoint_next_data(endpoint, 0, &found, &fault));
}

static void the_map_of_a_frozen_server_times_out(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct endpoint_spec spec = contract.spec;
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];
	struct extent found;

	(void)state;
	spec.timeout_usec = 300 * USEC_PER_MSEC;
	struct endpoint *endpoint = stuck_endpoint(&spec, many, data);
	assert_int_equal(endpoint_next_data(endpoint, 0, &found, &fault), -ETIMEDOUT);
	assert_non_null(strstr(fault.params[0], "no answer about its map"));
	endpoint_close(endpoint);
	check_all_ended(many, -ETIMEDOUT);
}

static void cancel_ends_the_wait_for_a_frozen_server(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	struct endpoint *other = NULL;
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];
	struct extent found;

	(void)state;
	check_ok(&fault, endpoint_open(&contract.spec, cancel, &other, &fault));
	struct endpoint *endpoint = stuck_endpoint(&contract.spec, many, data);
	cancel_request(cancel, "enough");
	assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, cancel), -ECANCELED);
	endpoint_close(endpoint);
	check_all_ended(many, -ECANCELED);
	assert_int_equal(endpoint_next_data(other, 0, &found, &fault), -ECANCELED);
	endpoint_close(other);
	assert_int_equal(endpoint_open(&contract.spec, cancel, &other, &fault), -ECANCELED);
}

static void a_killed_server_resets_all(void **state)
{
	void *data CLEANUP_FREE = calloc(1, BLOCK);
	struct counted many[N_MANY];

	(void)state;
	struct endpoint *endpoint CLEANUP_ENDPOINT = stuck_endpoint(&contract.spec, many, data);
	nbd_kill(&nbd);
	while (endpoint_in_flight(endpoint))
		assert_int_equal(endpoint_service(endpoint, USEC_FOREVER, NULL), 0);
	check_all_ended(many, -ECONNRESET);
	assert_int_equal(endpoint_wait(endpoint, -1, USEC_FOREVER, NULL), -ECONNRESET);
	nbd_serve(&nbd);
	struct counted late = counted_new(ENDPOINT_READ, 0, 512, data);
	assert_int_equal(counted_submit(endpoint, &late), -ECONNRESET);
	assert_int_equal(try_open(&contract.spec, ""), 0);
}

static void a_server_lost_while_idle_is_noticed(void **state)
{
	struct endpoint *endpoint CLEANUP_ENDPOINT = open_it(&contract.spec);

	(void)state;
	nbd_kill(&nbd);
	assert_int_equal(endpoint_wait(endpoint, -1, USEC_FOREVER, NULL), -ECONNRESET);
}

static void an_answer_that_is_an_error_is_the_requests_own(void **state)
{
	struct endpoint *endpoint CLEANUP_ENDPOINT = NULL;
	char data[512];

	(void)state;
	nbd_kill(&nbd);
	/* A qcow2 image whose first data cluster lies where there is no file. */
	assert_int_equal(truncate(nbd.image, 0), 0);
	nbd_qemu_img((const char *const[]){
		"create", "-q", "-f", "qcow2", "-o", "cluster_size=65536", nbd.image, "8M", NULL});
	FILE *file CLEANUP_FCLOSE = fopen(nbd.image, "r+");
	const unsigned char l1[8] = {0x80, 0, 0, 0, 0, 0x04, 0, 0};
	const unsigned char l2[8] = {0x80, 0, 0, 0, 0, 0xff, 0x02, 0}; /* no cluster begins there */
	assert_int_equal(fseek(file, 0x30000, SEEK_SET), 0);
	assert_int_equal(fwrite(l1, 1, 8, file), 8);
	assert_int_equal(fseek(file, 0x40000, SEEK_SET), 0);
	assert_int_equal(fwrite(l2, 1, 8, file), 8);
	assert_int_equal(fflush(file), 0);
	nbd_serve(&nbd);
	struct endpoint_spec spec = contract.spec;
	spec.writable = false;
	spec.size_bytes = 8 << 20;
	endpoint = open_it(&spec);
	struct counted read = counted_new(ENDPOINT_READ, 0, 512, data);
	assert_int_equal(counted_run(endpoint, &read), -EIO);
	assert_non_null(strstr(endpoint_error(endpoint), "read of 512 bytes at 0"));
	/* The connection lives on. */
	assert_int_equal(endpoint_wait(endpoint, -1, 0, NULL), -ETIMEDOUT);
}

#define OWN_TEST(name) cmocka_unit_test_setup_teardown(name, setup_qcow2, teardown)

int main(void)
{
#define setup setup_raw
	const struct CMUnitTest raw[] = {CONTRACT_TESTS};
#undef setup
#define setup setup_qcow2
	const struct CMUnitTest qcow2[] = {CONTRACT_TESTS};
#undef setup
	const struct CMUnitTest own[] = {
		OWN_TEST(what_is_not_there_says_so),
		OWN_TEST(the_map_is_asked_for_anew),
		OWN_TEST(data_behind_a_long_hole_is_found),
		OWN_TEST(a_frozen_server_times_out_all),
		OWN_TEST(the_map_of_a_frozen_server_times_out),
		OWN_TEST(cancel_ends_the_wait_for_a_frozen_server),
		OWN_TEST(a_killed_server_resets_all),
		OWN_TEST(a_server_lost_while_idle_is_noticed),
		OWN_TEST(an_answer_that_is_an_error_is_the_requests_own),
	};

	if (!nbd_is_available()) {
		print_message("qemu-nbd and qemu-img are not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(raw, NULL, NULL) + cmocka_run_group_tests(qcow2, NULL, NULL) +
	       cmocka_run_group_tests(own, NULL, NULL);
}
