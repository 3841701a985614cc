/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/clock.h"
#include "xmlrpc/keeper.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
	int ours;
	int kept_fd;
	struct kept *kept;
};

static void add_pair(struct keeper *keeper, struct pair *pair, uint64_t delay_usec)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	pair->ours = fds[0];
	pair->kept_fd = fds[1];
	pair->kept = keeper_add(keeper, pair->kept_fd, clock_deadline(delay_usec));
}

static void remove_pair(struct keeper *keeper, struct pair *pair)
{
	keeper_remove(keeper, pair->kept);
	close(pair->ours);
	close(pair->kept_fd);
}

static bool is_cut(const struct pair *pair, int timeout_msec)
{
	struct pollfd fd = {.fd = pair->ours, .events = POLLIN};

	return poll(&fd, 1, timeout_msec) == 1 && fd.revents & POLLHUP;
}

static void only_what_is_late_is_cut(void **state)
{
	struct keeper *keeper = keeper_start();
	struct pair late, moved, patient;

	(void)state;
	assert_non_null(keeper);
	add_pair(keeper, &moved, 0);
	keeper_set_deadline(keeper, moved.kept, USEC_FOREVER);
	add_pair(keeper, &late, 100 * USEC_PER_MSEC);
	add_pair(keeper, &patient, 3600 * USEC_PER_SEC);
	assert_true(is_cut(&late, 10000));
	assert_false(is_cut(&moved, 0));
	assert_false(is_cut(&patient, 0));
	keeper_set_deadline(keeper, patient.kept, clock_now_usec());
	assert_true(is_cut(&patient, 10000));
	remove_pair(keeper, &moved);
	remove_pair(keeper, &patient);
	remove_pair(keeper, &late);
	keeper_stop(keeper);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_what_is_late_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
