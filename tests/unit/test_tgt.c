/* SPDX-License-Identifier: Apache-2.0 */
/* One real tgtd per test; what takes longer stands in tests/func. */
#include "tests/lib/check.h"
#include "tests/lib/target_fixture.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "target/tgt_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

static void it_listens_where_it_was_asked_and_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct stat st;

	check_ok(&fault, fixture_start(fixture, "127.0.0.1", &fault));
	assert_true(tgt_port(fixture->tgt) >= 1024);
	assert_false(tgt_is_lost(fixture->tgt));
	assert_int_equal(stat(fixture->run_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	pid_t pid = tgt_pid(fixture->tgt);
	uint64_t begin = clock_now_usec();
	fixture->tgt = tgt_stop(fixture->tgt);
	assert_true(clock_now_usec() - begin < USEC_PER_SEC);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(access(fixture->run_dir, F_OK), -1);
	assert_int_equal(fixture->n_lost, 0);
}

static void ipv6_works_too(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (access("/proc/net/if_inet6", R_OK) < 0)
		skip();
	check_ok(&fault, fixture_start(fixture, "::1", &fault));
	assert_true(tgt_port(fixture->tgt) >= 1024);
}

static void an_address_that_is_not_ours_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	/* TEST-NET-1 (RFC 5737). tgtd would listen on the wildcard instead, or end when that
	 * port is taken. */
	int r = fixture_start(fixture, "192.0.2.1", &fault);
	assert_true(r == -EADDRNOTAVAIL || r == -EIO);
	assert_null(fixture->tgt);
	assert_int_equal(access(fixture->run_dir, F_OK), -1);
}

static void the_wildcard_and_names_are_refused(void **state)
{
	const char *const addresses[] = {"0.0.0.0", "::", "localhost", "", "127.0.0.1:3260",
		"127.0.0.1,portal=0.0.0.0", "[::1]", "127.1"};
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		assert_int_equal(fixture_start(fixture, addresses[i], &fault), -EINVAL);
		assert_non_null(strstr(fault.params[0], addresses[i]));
	}
}

/* A "tgtd" that is a shell script. */
static int start_script(struct fixture *fixture, const char *text, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/tgtd.sh", fixture->images);
	const char *dirs[] = {fixture->images, NULL};
	struct tgt_params params = {.program = path,
		.run_dir = fixture->run_dir,
		.address = "127.0.0.1",
		.image_dirs = dirs,
		.n_threads = 1};

	assert_int_equal(io_replace_file(path, text, strlen(text), 0700), 0);
	int r = tgt_start(&params, &fixture->tgt, fault);
	unlink(path);
	return r;
}

static void another_portal_than_asked_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	assert_int_equal(start_script(fixture,
				 "#!/bin/sh\nexec " TGTD " -f -C 0 -t 1 --iscsi "
				 "portal=127.0.0.2:0\n",
				 &fault),
		-EADDRNOTAVAIL);
	assert_non_null(strstr(fault.params[0], "127.0.0.2"));
	assert_int_equal(start_script(fixture,
				 "#!/bin/sh\nexec " TGTD " -f -C 0 -t 1 --iscsi "
				 "portal=127.0.0.1:0,portal=127.0.0.1:0\n",
				 &fault),
		-EADDRNOTAVAIL);
}

static void a_program_that_ends_or_is_missing_is_told(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	assert_int_equal(start_script(fixture, "#!/bin/sh\nexit 34\n", &fault), -EIO);
	assert_non_null(strstr(fault.params[0], "status 34"));
	assert_int_equal(access(fixture->run_dir, F_OK), -1);
	const char *dirs[] = {fixture->images, NULL};
	struct tgt_params params = {.program = "/usr/sbin/no-such-tgtd",
		.run_dir = fixture->run_dir,
		.address = "127.0.0.1",
		.image_dirs = dirs,
		.n_threads = 1};
	assert_int_equal(tgt_start(&params, &fixture->tgt, &fault), -ENOENT);
	params.program = TGTD;
	params.n_threads = 0;
	assert_int_equal(tgt_start(&params, &fixture->tgt, &fault), -EINVAL);
}

static void a_run_folder_that_exists_is_not_used(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *socket CLEANUP_FREE = xasprintf("%s/s.0", fixture->run_dir);
	char *foreign CLEANUP_FREE = xasprintf("%s/foreign", fixture->run_dir);

	assert_int_equal(mkdir(fixture->run_dir, 0700), 0);
	assert_int_equal(io_replace_file(socket, "", 0, 0600), 0);
	assert_int_equal(fixture_start(fixture, "127.0.0.1", &fault), -EEXIST);
	assert_int_equal(access(socket, F_OK), 0);
	assert_int_equal(io_replace_file(foreign, "", 0, 0600), 0);
	assert_int_equal(tgt_forget_run_dir(fixture->run_dir), -ENOTEMPTY);
	unlink(foreign);
	assert_int_equal(tgt_forget_run_dir(fixture->run_dir), 0);
	assert_int_equal(tgt_forget_run_dir(fixture->run_dir), 0);
	char *deep CLEANUP_FREE = xasprintf("/tmp/%0100d", 0);
	struct tgt_params params = {.program = TGTD, .run_dir = deep, .address = "127.0.0.1"};
	params.n_threads = 1;
	assert_int_equal(tgt_start(&params, &fixture->tgt, &fault), -EINVAL);
	assert_int_equal(access(deep, F_OK), -1);
}

static void a_killed_tgtd_is_seen_at_once_and_told_once(void **state)
{
	struct fixture *fixture = *state;
	uint64_t begin = clock_now_usec();

	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGKILL), 0);
	assert_true(fixture_await_lost(fixture, 2));
	assert_true(clock_now_usec() - begin < USEC_PER_SEC);
	assert_true(tgt_is_lost(fixture->tgt));
	assert_non_null(strstr(fixture->reason, "signal 9"));
	fixture->tgt = tgt_stop(fixture->tgt);
	assert_int_equal(fixture->n_lost, 1);
}

static void sigterm_does_not_end_it_but_stop_does(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGTERM), 0);
	usleep(50000);
	assert_false(tgt_is_lost(fixture->tgt));
}

static void a_tgtd_with_a_target_is_stopped_too(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_params params = fixture_export(fixture);
	struct export_identity identity;

	check_ok(&fault, export_add(fixture->tgt, 1, &params, &identity, &fault));
	uint64_t begin = clock_now_usec();
	fixture->tgt = tgt_stop(fixture->tgt);
	assert_true(clock_now_usec() - begin < 2 * USEC_PER_SEC);
}

static void it_is_confined_limited_and_tuned(void **state)
{
	struct fixture *fixture = *state;
	int pid = tgt_pid(fixture->tgt);
	char *status_path CLEANUP_FREE = xasprintf("/proc/%d/status", pid);
	char *limits_path CLEANUP_FREE = xasprintf("/proc/%d/limits", pid);
	char *env_path CLEANUP_FREE = xasprintf("/proc/%d/environ", pid);
	struct buf status CLEANUP_BUF = BUF_INIT;
	struct buf limits CLEANUP_BUF = BUF_INIT;
	struct buf env CLEANUP_BUF = BUF_INIT;

	assert_int_equal(io_read_file(status_path, 65536, &status), 0);
	assert_int_equal(io_read_file(limits_path, 65536, &limits), 0);
	assert_int_equal(io_read_file(env_path, 65536, &env), 0);
	assert_non_null(strstr(status.data, "NoNewPrivs:\t1"));
	assert_non_null(strstr(limits.data, "Max open files            1024                 1024"));
	for (size_t i = 0; i < env.length; i++)
		if (env.data[i] == '\0')
			env.data[i] = '\n';
	assert_non_null(strstr(env.data, "glibc.malloc.mmap_threshold=33554432"));
	assert_non_null(strstr(env.data, "\nTGT_IPC_SOCKET="));
	assert_null(strstr(env.data, "PATH="));
}

static void it_cannot_open_what_it_was_not_given(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_params params = fixture_export(fixture);
	struct export_identity identity;
	char *outside CLEANUP_FREE = xasprintf("%s/outside.img", fixture->dir);
	int fd CLEANUP_CLOSE = open(outside, O_RDWR | O_CREAT, 0600);

	/* This process may write it, so only Landlock can refuse. */
	assert_int_equal(ftruncate(fd, SIZE), 0);
	params.path = outside;
	int r = export_add(fixture->tgt, 1, &params, &identity, &fault);
	unlink(outside);
	assert_int_equal(r, -EREMOTEIO);
	assert_false(tgt_is_lost(fixture->tgt));
}

static void it_answers_only_the_right_process(void **state)
{
	struct fixture *fixture = *state;
	char *path CLEANUP_FREE = xasprintf("%s/s.0", fixture->run_dir);
	struct tgt_mgmt mgmt = {.socket_path = path, .pid = getpid()};
	struct tgt_request request = {.mode = TGT_MODE_SYSTEM, .op = TGT_OP_SHOW};

	assert_int_equal(
		tgt_mgmt_call(&mgmt, &request, NULL, clock_deadline(USEC_PER_SEC), NULL), -EPERM);
	mgmt.pid = tgt_pid(fixture->tgt);
	assert_int_equal(
		tgt_mgmt_call(&mgmt, &request, NULL, clock_deadline(USEC_PER_SEC), NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_listens_where_it_was_asked_and_leaves_nothing,
			fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(ipv6_works_too, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			an_address_that_is_not_ours_is_refused, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			the_wildcard_and_names_are_refused, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			another_portal_than_asked_is_refused, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_program_that_ends_or_is_missing_is_told, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_run_folder_that_exists_is_not_used, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_killed_tgtd_is_seen_at_once_and_told_once,
			fixture_setup_tgt, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			sigterm_does_not_end_it_but_stop_does, fixture_setup_tgt, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_tgtd_with_a_target_is_stopped_too, fixture_setup_tgt, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			it_is_confined_limited_and_tuned, fixture_setup_tgt, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			it_cannot_open_what_it_was_not_given, fixture_setup_tgt, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			it_answers_only_the_right_process, fixture_setup_tgt, fixture_teardown),
	};

	if (access(TGTD, X_OK) < 0)
		return 77;
	return cmocka_run_group_tests(tests, fixture_drop_privileges, NULL);
}
