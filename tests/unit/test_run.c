/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SOON (10 * USEC_PER_SEC)

static char dir[] = "/tmp/ferry-run-XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

static void write_file(const char *path, const char *text)
{
	assert_int_equal(io_replace_file(path, text, strlen(text), 0600), 0);
}

/* Runs a shell script; the exit status. */
static int shell(const char *script, const struct run_params *base)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	struct run_params params = base ? *base : (struct run_params){0};
	struct child *child CLEANUP_CHILD = NULL;

	params.argv = argv;
	params.log_id = "test.shell";
	check_ok(&fault, run_start(&params, &child, &fault));
	assert_int_equal(run_wait(child, clock_deadline(SOON)), 0);
	int status = run_status(child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void its_end_and_status_are_seen(void **state)
{
	(void)state;
	assert_int_equal(shell("exit 7", NULL), 7);
	assert_int_equal(shell("kill -TERM $$", NULL), -SIGTERM);
}

static void a_wait_ends_at_its_deadline_and_free_kills(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const char *argv[] = {"/bin/sleep", "100", NULL};
	struct run_params params = {.argv = argv, .log_id = "test.sleep"};
	struct child *child = NULL;

	(void)state;
	check_ok(&fault, run_start(&params, &child, &fault));
	pid_t pid = run_pid(child);
	uint64_t begin = clock_now_usec();
	assert_int_equal(run_wait(child, clock_deadline(50 * USEC_PER_MSEC)), -ETIMEDOUT);
	assert_true(clock_now_usec() - begin >= 50 * USEC_PER_MSEC);
	assert_true(run_is_alive(child));
	assert_int_equal(run_status(child), -1);
	run_free(child);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

static void a_program_that_cannot_run_is_an_error_that_names_it(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const char *missing[] = {"/usr/bin/ferry-no-such-program", NULL};
	const char *relative[] = {"sh", NULL};
	struct run_params params = {.argv = missing, .log_id = "test"};
	struct run_path rule = {.path = "/tmp"};
	struct child *child = NULL;

	(void)state;
	assert_int_equal(run_start(&params, &child, &fault), -ENOENT);
	assert_non_null(strstr(fault.params[0], "ferry-no-such-program"));
	params.paths = &rule;
	params.n_paths = 1;
	assert_int_equal(run_start(&params, &child, &fault), -ENOENT);
	params.argv = relative;
	assert_int_equal(run_start(&params, &child, &fault), -EINVAL);
	rule.path = "/no/such/folder";
	params.argv = (const char *const[]){"/bin/true", NULL};
	assert_int_equal(run_start(&params, &child, &fault), -ENOENT);
	assert_non_null(strstr(fault.params[0], "/no/such/folder"));
	assert_null(child);
}

static void it_has_only_what_it_was_given(void **state)
{
	const char *env[] = {"FERRY_GIVEN=yes", NULL};
	struct run_params params = {.env = env, .max_files = 64};
	int leak CLEANUP_CLOSE = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */

	(void)state;
	assert_true(leak > 2);
	setenv("FERRY_LEAKED", "yes", 1);
	assert_int_equal(
		shell("[ \"$FERRY_GIVEN\" = yes ] && [ -z \"$FERRY_LEAKED\" ]", &params), 0);
	assert_int_equal(shell("[ $(ulimit -n) = 64 ] && [ $(ulimit -c) = 0 ]", &params), 0);
	assert_int_equal(shell("[ $(pwd) = / ] && ! read x", &params), 0);
	assert_int_equal(shell("grep -q '^NoNewPrivs:.1' /proc/self/status", &params), 0);
	char *script CLEANUP_FREE = xasprintf("[ ! -e /proc/self/fd/%d ]", leak);
	assert_int_equal(shell(script, &params), 0);
}

static void ignored_and_blocked_signals_are_not_inherited(void **state)
{
	sigset_t term, before;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, &before);
	assert_int_equal(shell("grep -q '^SigBlk:.0*$' /proc/self/status && "
			       "grep -q '^SigIgn:.0*$' /proc/self/status",
				 NULL),
		0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	signal(SIGPIPE, SIG_DFL);
}

static int landlock_abi(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static void what_is_not_given_is_out_of_reach(void **state)
{
	char *given CLEANUP_FREE = xasprintf("%s/given", dir);
	char *readable CLEANUP_FREE = xasprintf("%s/readable", dir);
	char *secret CLEANUP_FREE = xasprintf("%s/secret", dir);
	char *given_file CLEANUP_FREE = xasprintf("%s/file", given);
	char *readable_file CLEANUP_FREE = xasprintf("%s/file", readable);
	struct run_path paths[] = {{given, true}, {readable, false}};
	struct run_params params = {.paths = paths, .n_paths = 2};

	(void)state;
	if (landlock_abi() <= 0)
		skip();
	assert_int_equal(mkdir(given, 0700), 0);
	assert_int_equal(mkdir(readable, 0700), 0);
	write_file(given_file, "text\n");
	write_file(readable_file, "text\n");
	write_file(secret, "text\n");
	char *ok CLEANUP_FREE = xasprintf("read x <%s && echo y >%s && echo z >%s/new && rm %s/new",
		readable_file, given_file, given, given);
	char *read_secret CLEANUP_FREE = xasprintf("read x <%s", secret);
	char *write_readable CLEANUP_FREE = xasprintf("echo x >%s", readable_file);
	assert_int_equal(shell(ok, &params), 0);
	assert_int_not_equal(shell(read_secret, &params), 0);
	assert_int_not_equal(shell(write_readable, &params), 0);
	assert_int_not_equal(shell("read x </etc/passwd", &params), 0);
	assert_int_not_equal(shell("read x </proc/self/status", &params), 0);
	/* The same scripts work without the rules: it was Landlock that refused. */
	assert_int_equal(shell(read_secret, NULL), 0);
	assert_int_equal(shell(write_readable, NULL), 0);
	unlink(given_file);
	unlink(readable_file);
	unlink(secret);
	rmdir(given);
	rmdir(readable);
}

static void a_confined_child_cannot_signal_its_starter(void **state)
{
	struct run_path path = {dir, false};
	struct run_params params = {.paths = &path, .n_paths = 1};
	char *script CLEANUP_FREE = xasprintf("kill -0 %d", (int)getpid());

	(void)state;
	if (landlock_abi() < 6)
		skip();
	assert_int_equal(shell(script, NULL), 0);
	assert_int_not_equal(shell(script, &params), 0);
}

static void a_denied_connect_is_refused(void **state)
{
	struct run_path path = {dir, false};
	struct run_params params = {.paths = &path, .n_paths = 1, .deny_connect = true};
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	int fd CLEANUP_CLOSE = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	if (landlock_abi() < 4 || access("/usr/bin/bash", X_OK) < 0)
		skip();
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	unsigned port = ntohs(((struct sockaddr_in *)&address)->sin_port);
	char *script CLEANUP_FREE = xasprintf("/usr/bin/bash -c ': </dev/tcp/127.0.0.1/%u'", port);
	assert_int_equal(shell(script, NULL), 0);
	assert_int_not_equal(shell(script, &params), 0);
}

/* Runs a shell script with our standard error in a file; the number of lines with `word`. */
static size_t log_lines(const char *script, const char *word, int *ret_status)
{
	char *path CLEANUP_FREE = xasprintf("%s/log", dir);
	int log CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int before CLEANUP_CLOSE = dup(2);
	struct buf text CLEANUP_BUF = BUF_INIT;
	size_t n = 0;

	assert_true(log >= 0 && before >= 0);
	dup2(log, 2);
	*ret_status = shell(script, NULL);
	dup2(before, 2);
	assert_int_equal(io_read_file(path, 1024 * 1024, &text), 0);
	unlink(path);
	for (const char *at = text.data; at && (at = strstr(at, word)); at++)
		n++;
	return n;
}

static void its_output_is_logged_line_by_line(void **state)
{
	int status;

	(void)state;
	assert_int_equal(
		log_lines("echo out; echo err >&2; printf unfinished", "test.shell pid=", &status),
		3);
	assert_int_equal(status, 0);
}

static void a_flood_of_output_does_not_block_it_and_is_limited(void **state)
{
	/* 4 MiB: 64 times what a pipe holds. */
	const char *script = "i=0; while [ $i -lt 4096 ]; do printf '%01023d\\n' 0; i=$((i+1)); "
			     "done";
	uint64_t begin = clock_now_usec();
	int status;

	(void)state;
	size_t n = log_lines(script, "test.shell pid=", &status);
	uint64_t seconds = (clock_now_usec() - begin) / USEC_PER_SEC + 1;
	assert_int_equal(status, 0);
	assert_true(n >= 21 && n <= seconds * 21 + 1);
	assert_true(log_lines(script, "lines_dropped=", &status) >= 1);
}

static void a_line_without_end_does_not_grow(void **state)
{
	int status;

	(void)state;
	assert_int_equal(
		log_lines("head -c 3000000 /dev/zero | tr '\\0' x", "test.shell pid=", &status), 1);
	assert_int_equal(status, 0);
}

static void a_descendant_that_keeps_the_pipe_does_not_hold_free(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const char *argv[] = {"/bin/sh", "-c", "sleep 3 & exit 0", NULL};
	struct run_params params = {.argv = argv, .log_id = "test"};
	struct child *child = NULL;
	uint64_t begin = clock_now_usec();

	(void)state;
	check_ok(&fault, run_start(&params, &child, &fault));
	assert_int_equal(run_wait(child, clock_deadline(SOON)), 0);
	run_free(child);
	assert_true(clock_now_usec() - begin < 2 * USEC_PER_SEC);
}

/* The other half of the next test, run as a process of its own: starts a child, tells its pid,
 * waits to be killed. */
static int be_a_parent(void)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const char *argv[] = {"/bin/sleep", "100", NULL};
	struct run_params params = {.argv = argv, .log_id = "test"};
	struct child *child = NULL;

	if (run_start(&params, &child, &fault) < 0)
		return 1;
	int pid = run_pid(child);
	if (io_write_full(1, &pid, sizeof(pid)) < 0)
		return 1;
	for (;;)
		pause();
}

static void it_dies_with_its_parent(void **state)
{
	int out[2];
	int child = -1;

	(void)state;
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	pid_t parent = fork();
	if (parent == 0) {
		dup2(out[1], 1);
		execl("/proc/self/exe", "test_run", "--parent", NULL);
		_exit(127);
	}
	close(out[1]);
	assert_true(parent > 0);
	assert_int_equal(read(out[0], &child, sizeof(child)), sizeof(child));
	assert_int_equal(kill(child, 0), 0);
	int pidfd CLEANUP_CLOSE = (int)syscall(SYS_pidfd_open, child, 0);
	assert_true(pidfd >= 0);
	assert_int_equal(kill(parent, SIGKILL), 0);
	struct pollfd fd = {.fd = pidfd, .events = POLLIN};
	int n = poll(&fd, 1, 5000);
	if (n != 1)
		kill(child, SIGKILL);
	assert_int_equal(n, 1);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	close(out[0]);
}

static void *start_many(void *arg)
{
	for (int i = 0; i < 20; i++) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		const char *argv[] = {"/bin/true", NULL};
		struct run_params params = {.argv = argv, .log_id = "test"};
		struct child *child CLEANUP_CHILD = NULL;
		if (run_start(&params, &child, &fault) < 0 ||
			run_wait(child, clock_deadline(SOON)) < 0 || run_status(child) != 0)
			__atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void threads_start_children_at_the_same_time(void **state)
{
	pthread_t threads[4];
	int n_failed = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, start_many, &n_failed), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(n_failed, 0);
}

static void one_that_outlives_is_left_and_taken_in_again(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct buf output CLEANUP_BUF = BUF_INIT;
	char *path CLEANUP_FREE = xasprintf("%s/output", dir);
	const char *argv[] = {"/bin/sh", "-c", "echo started; exec sleep 100", NULL};
	struct run_params params = {.argv = argv, .outlives_with_output = path};
	struct child *child = NULL;
	struct child *again = NULL;

	(void)state;
	check_ok(&fault, run_start(&params, &child, &fault));
	pid_t pid = run_pid(child);
	assert_null(run_leave(child));
	assert_int_equal(kill(pid, 0), 0);

	check_ok(&fault, run_adopt(pid, &again, &fault));
	assert_int_equal(run_pid(again), pid);
	assert_true(run_is_alive(again));
	/* Until the deadline; by then the shell has written its line. */
	assert_int_equal(run_wait(again, clock_deadline(300 * USEC_PER_MSEC)), -ETIMEDOUT);
	run_kill(again, SIGKILL);
	assert_int_equal(run_wait(again, clock_deadline(SOON)), 0);
	assert_false(run_is_alive(again));
	assert_int_equal(run_status(again), -1);
	run_free(again);
	/* Its parent lives on here, and is to reap it. */
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(run_adopt(pid, &again, &fault), -ESRCH);
	assert_int_equal(io_read_file(path, 100, &output), 0);
	assert_string_equal(output.data, "started\n");
	unlink(path);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(its_end_and_status_are_seen),
		cmocka_unit_test(one_that_outlives_is_left_and_taken_in_again),
		cmocka_unit_test(a_wait_ends_at_its_deadline_and_free_kills),
		cmocka_unit_test(a_program_that_cannot_run_is_an_error_that_names_it),
		cmocka_unit_test(it_has_only_what_it_was_given),
		cmocka_unit_test(ignored_and_blocked_signals_are_not_inherited),
		cmocka_unit_test(what_is_not_given_is_out_of_reach),
		cmocka_unit_test(a_confined_child_cannot_signal_its_starter),
		cmocka_unit_test(a_denied_connect_is_refused),
		cmocka_unit_test(its_output_is_logged_line_by_line),
		cmocka_unit_test(a_flood_of_output_does_not_block_it_and_is_limited),
		cmocka_unit_test(a_line_without_end_does_not_grow),
		cmocka_unit_test(a_descendant_that_keeps_the_pipe_does_not_hold_free),
		cmocka_unit_test(it_dies_with_its_parent),
		cmocka_unit_test(threads_start_children_at_the_same_time),
	};

	if (argc > 1 && strcmp(argv[1], "--parent") == 0)
		return be_a_parent();
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
