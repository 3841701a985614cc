/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's memory through the tunnel: two real QEMUs that see only sockets of their own host. */
#include "tests/lib/bare_guest.h"
#include "tests/lib/tunnel_fixture.h"

#include "agent/guest/memory.h"

#define MEMORY_DOOR "6f8c0e0a-9a2b-4c53-8a48-2b6e6f3b7c11/guest"
#define WHILE_FLOWING                                                                              \
	(1u << MEMORY_NONE | 1u << MEMORY_ACTIVE | 1u << MEMORY_DEVICE | 1u << MEMORY_CANCELLING)

struct world {
	struct tunnel_fixture *tunnel;
	struct bare_guest source, dest;
	struct guest_watch *watch;
};

static int set_up(void **state)
{
	const struct bare_guest_params source = {.n_disks = 1, .disk_bytes = 1 << 20};
	struct world *w = xcalloc(1, sizeof(*w));

	*state = w;
	tunnel_setup((void **)&w->tunnel);
	bare_guest_start(&w->source, &source);
	const struct bare_guest_params dest = {.source = &w->source};
	bare_guest_start(&w->dest, &dest);
	w->watch = guest_watch_new(w->source.guest);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	struct tunnel_fixture *tunnel = w->tunnel;

	guest_watch_free(w->watch);
	bare_guest_clear(&w->dest);
	bare_guest_clear(&w->source);
	free(w);
	return tunnel_teardown((void **)&tunnel);
}

static void await_status(struct world *w, unsigned while_status, enum memory_status expected)
{
	struct memory_progress progress;
	struct fault *fault = &w->tunnel->fault;

	check_ok(fault, memory_await(w->source.guest, w->watch, while_status, -1,
				clock_deadline(PATIENCE), NULL, &progress, fault));
	assert_string_equal(memory_status_name(progress.status), memory_status_name(expected));
}

static void move_to_the_switch(struct world *w)
{
	struct fault *fault = &w->tunnel->fault;
	char *far CLEANUP_FREE = guest_file(w->dest.spec.run_dir, GUEST_MEMORY);
	char *listen_uri CLEANUP_FREE = xasprintf("unix:%s", far);
	char *uri CLEANUP_FREE = xasprintf("unix:%s", w->tunnel->near_path);
	struct tunnel_link_params link = link_params(w->tunnel);
	const struct memory_params memory = {
		.uri = uri, .max_bytes_per_sec = 1 << 30, .downtime_limit_usec = USEC_PER_SEC};

	check_ok(fault, memory_listen(w->dest.guest, listen_uri, fault));
	const struct tunnel_door door = {.name = MEMORY_DOOR, .secret = SECRET, .socket_path = far};
	check_ok(fault, tunnel_open_door(w->tunnel->tunnel, &door, fault));
	link.door = MEMORY_DOOR;
	check_ok(fault, try_link(w->tunnel, &link));
	check_ok(fault, memory_start(w->source.guest, &memory, fault));
	await_status(w, WHILE_FLOWING, MEMORY_PRE_SWITCHOVER);
}

static void a_guest_moves_through_a_link(void **state)
{
	struct world *w = *state;
	struct fault *fault = &w->tunnel->fault;

	move_to_the_switch(w);
	uint64_t start = clock_now_usec();
	check_ok(fault, memory_continue(w->source.guest, fault));
	await_status(w, WHILE_FLOWING | 1u << MEMORY_PRE_SWITCHOVER, MEMORY_COMPLETED);
	print_message("handed over in %.1f ms, %llu KiB in all\n",
		(double)(clock_now_usec() - start) / 1000,
		(unsigned long long)tunnel_link_sent(w->tunnel->link) / 1024);
	bare_guest_do(&w->dest, "cont", NULL);
	assert_true(bare_guest_is_running(&w->dest));
	await(tunnel_link_fd(w->tunnel->link), POLLIN);
	assert_false(tunnel_link_is_broken(w->tunnel->link));
}

/* QEMU does not look at its socket there: the link is what tells. */
static void a_link_that_is_cut_at_the_switch_is_seen(void **state)
{
	struct world *w = *state;
	struct fault *fault = &w->tunnel->fault;

	move_to_the_switch(w);
	tunnel_close_door(w->tunnel->tunnel, MEMORY_DOOR);
	await(tunnel_link_fd(w->tunnel->link), POLLIN);
	assert_true(tunnel_link_is_broken(w->tunnel->link));
	check_ok(fault, memory_cancel(w->source.guest, fault));
	assert_true(bare_guest_is_running(&w->source));
}

static void a_link_that_is_cut_in_the_handover_gives_the_guest_back(void **state)
{
	struct world *w = *state;
	struct fault *fault = &w->tunnel->fault;

	move_to_the_switch(w);
	w->tunnel->link = tunnel_link_close(w->tunnel->link);
	check_ok(fault, memory_continue(w->source.guest, fault));
	await_status(w, WHILE_FLOWING | 1u << MEMORY_PRE_SWITCHOVER, MEMORY_FAILED);
	uint64_t deadline = clock_deadline(PATIENCE);
	while (!bare_guest_is_running(&w->source) && clock_now_usec() < deadline)
		cancel_sleep(NULL, USEC_PER_MSEC);
	assert_true(bare_guest_is_running(&w->source));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_guest_moves_through_a_link),
		TEST(a_link_that_is_cut_at_the_switch_is_seen),
		TEST(a_link_that_is_cut_in_the_handover_gives_the_guest_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
