/* SPDX-License-Identifier: Apache-2.0 */
/* Guests of the storage fixture's host: real QEMU, without a system on their disks. */
#ifndef FERRY_TESTS_LIB_GUEST_FIXTURE_H
#define FERRY_TESTS_LIB_GUEST_FIXTURE_H

#include "tests/lib/storage_fixture.h"

#include "agent/vm/guests.h"
#include "base/clock.h"

#define GUEST_PROGRAM      "/usr/bin/qemu-system-x86_64"
#define GUEST_MEMORY_BYTES (INT64_C(16) << 20)

static inline void guest_fixture_memory(int64_t *ret_total_bytes, int64_t *ret_free_bytes)
{
	*ret_total_bytes = *ret_free_bytes = INT64_C(1) << 30;
}

/* Guests as an agent has them after its start. */
static inline struct guests *guest_fixture_open(struct fixture *fixture)
{
	const struct guests_params params = {
		.storage = &fixture->storage,
		.run_dir = fixture->folder,
		.program = GUEST_PROGRAM,
		.memory = guest_fixture_memory,
	};
	struct guests *guests = NULL;

	check_ok(&fixture->fault, guests_new(&params, &guests, &fixture->fault));
	check_ok(&fixture->fault, guests_recover(guests, &fixture->fault));
	return guests;
}

/* The fields of a small VM. */
static inline struct value *guest_fixture_vm(void)
{
	struct value *fields = value_new_struct();

	value_set_string(fields, "name_label", "guest");
	value_set_string(fields, "power_state", "Halted");
	value_set_int(fields, "memory_static_max", GUEST_MEMORY_BYTES);
	value_set_int(fields, "VCPUs_max", 1);
	return fields;
}

static inline void guest_fixture_do(
	struct fixture *fixture, struct guests *guests, const char *vm, const char *operation)
{
	const struct guests_request request = {.vm = vm, .operation = operation, .key = "test"};

	check_ok(&fixture->fault, guests_do(guests, &request, &fixture->fault));
}

static inline void guest_fixture_check_state(
	struct fixture *fixture, const char *vm, const char *state)
{
	struct value *record CLEANUP_VALUE = fixture_record(fixture, "VM", vm);

	assert_string_equal(value_find_string(record, "power_state", ""), state);
}

/* Stored by a thread that follows the guest. */
static inline void guest_fixture_await_state(
	struct fixture *fixture, const char *vm, const char *state)
{
	uint64_t deadline = clock_deadline(20 * USEC_PER_SEC);
	bool is_there = false;

	while (!is_there && clock_now_usec() < deadline) {
		struct value *record CLEANUP_VALUE = fixture_record(fixture, "VM", vm);
		is_there = strcmp(value_find_string(record, "power_state", ""), state) == 0;
		if (!is_there)
			cancel_sleep(NULL, 10 * USEC_PER_MSEC);
	}
	guest_fixture_check_state(fixture, vm, state);
}

/* What the journal has of guests; owner NULL: of anybody. */
static inline size_t guest_fixture_count_journal(struct fixture *fixture, const char *owner)
{
	struct resource_row *rows = NULL;
	size_t n = 0;

	check_ok(&fixture->fault,
		resource_list(fixture->storage.agent, owner, "qemu", &rows, &n, &fixture->fault));
	for (size_t i = 0; i < n; i++)
		resource_row_clear(&rows[i]);
	free(rows);
	return n;
}

/* A guest's folder is removed by a thread, some time after its VM is Halted. */
static inline void guest_fixture_await_journal(struct fixture *fixture, size_t n)
{
	uint64_t deadline = clock_deadline(20 * USEC_PER_SEC);

	while (guest_fixture_count_journal(fixture, NULL) != n && clock_now_usec() < deadline)
		cancel_sleep(NULL, 10 * USEC_PER_MSEC);
	assert_int_equal(guest_fixture_count_journal(fixture, NULL), n);
}

#endif
