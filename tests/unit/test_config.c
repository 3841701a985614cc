/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/config.h"
#include "base/alloc.h"
#include "base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/ferry-config-XXXXXX";

static int make_file(void **state)
{
	(void)state;
	strcpy(path + strlen(path) - 6, "XXXXXX");
	int fd = mkstemp(path);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static void write_bytes(const void *data, size_t length)
{
	FILE *file CLEANUP_FCLOSE = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, length, file), length);
}

static void write_text(const char *text)
{
	write_bytes(text, strlen(text));
}

/* The text must be refused, and the message say each of these. */
static void check_refused(const char *text, const char *const *expected)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	write_text(text);
	assert_int_equal(config_load(path, &config, &fault), -EINVAL);
	assert_int_equal(fault.n_params, 1);
	for (; *expected; expected++) {
		if (!strstr(fault.params[0], *expected))
			fail_msg("\"%s\" is not in \"%s\"", *expected, fault.params[0]);
	}
}
#define REFUSED(text, ...) check_refused(text, (const char *const[]){__VA_ARGS__, NULL})

static void an_empty_file_gives_the_documented_defaults(void **state)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	write_text("");
	check_ok(&fault, config_load(path, &config, &fault));
	assert_string_equal(config.user, "ferry");
	assert_string_equal(config.state_dir, "/var/lib/ferry");
	assert_string_equal(config.run_dir, "/run/ferry");
	assert_string_equal(config.listen, "0.0.0.0:443");
	assert_string_equal(config.listen_host, "0.0.0.0");
	assert_int_equal(config.listen_port, 443);
	assert_string_not_equal(config.address, "0.0.0.0");
	assert_true(strlen(config.address) > 0);
	assert_string_equal(config.data_address, "127.0.0.1");
	assert_int_equal(config.data_port, 0);
	assert_int_equal(config.data_tls, 1);
	assert_int_equal(config.log_level, LOG_LEVEL_INFO);
	assert_true(strlen(config.pool_name) > 0);
	assert_int_equal(config.workers, 8);
	assert_int_equal(config.session_timeout_usec, UINT64_C(86400000000));
	assert_int_equal(config.login_delay_usec, 5000000);
	assert_int_equal(config.lease_usec, 15000000);
	assert_int_equal(config.abandon_usec, 600000000);
	assert_int_equal(config.max_downtime_usec, 300 * 1000);
	assert_int_equal(config.bandwidth_bytes_per_sec, 0);
	assert_int_equal(config.copy_sessions, 0);
	assert_string_equal(config.tgtd, "/usr/sbin/tgtd");
	assert_int_equal(config.tgtd_threads, 4);
	assert_string_equal(config.qemu, "/usr/bin/qemu-system-x86_64");
	assert_string_equal(config.watchdog, "/usr/libexec/ferry/ferry-watchdog");
	assert_int_equal(config.shutdown_timeout_usec, 120 * UINT64_C(1000000));
}

static void every_key_is_read(void **state)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct buf printed CLEANUP_BUF = BUF_INIT;
	static const char text[] = "[ferryd]\n"
				   "user = someone\n"
				   "state_dir = /tmp/a b\n"
				   "run_dir = /tmp/r\n"
				   "listen = [::1]:8443\n"
				   "address = host.example\n"
				   "data_address = 2001:db8::7\n"
				   "data_port = 4433\n"
				   "data_tls = off\n"
				   "log_level = debug\n"
				   "pool_name = Pöol; one\n"
				   "host_name = h\n"
				   "workers = 2\n"
				   "max_connections = 9\n"
				   "session_timeout = 1h\n"
				   "login_delay = 10ms\n"
				   "pam_socket = /run/pam\n"
				   "\n[migration]\n"
				   "max_sending = 1\n"
				   "max_queued = 2\n"
				   "heartbeat = 100ms\n"
				   "lease = 300ms\n"
				   "abandon = 1s\n"
				   "peer_timeout = 2s\n"
				   "max_downtime = 1s\n"
				   "bandwidth = 100M\n"
				   "\n[pool]\n"
				   "copy_interval = 7s\n"
				   "\n[copy]\n"
				   "sessions = 2\n"
				   "request_size = 256K\n"
				   "in_flight = 1M\n"
				   "\n[tgt]\n"
				   "program = /opt/tgtd\n"
				   "threads = 1\n"
				   "\n[image]\n"
				   "qemu_img = /opt/qemu-img\n"
				   "qemu_nbd = /opt/qemu-nbd\n"
				   "\n[guest]\n"
				   "qemu = /opt/qemu\n"
				   "watchdog = /opt/watchdog\n"
				   "shutdown_timeout = 45s\n";

	(void)state;
	write_text(text);
	check_ok(&fault, config_load(path, &config, &fault));
	assert_string_equal(config.listen_host, "::1");
	assert_int_equal(config.listen_port, 8443);
	assert_int_equal(config.max_downtime_usec, 1000000);
	assert_int_equal(config.bandwidth_bytes_per_sec, 100 << 20);
	/* What is printed is what was read: no key is lost, and each comes back in its own form. */
	config_print(&config, &printed);
	assert_string_equal(printed.data, text);
}

static void a_wildcard_is_not_an_address_for_peers(void **state)
{
	static const char *const texts[] = {"[ferryd]\nlisten=0.0.0.0:1\n",
		"[ferryd]\nlisten=[::]:1\n", "[ferryd]\nlisten=[0::0]:1\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct config config CLEANUP_CONFIG = CONFIG_INIT;
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		write_text(texts[i]);
		check_ok(&fault, config_load(path, &config, &fault));
		assert_string_not_equal(config.address, "0.0.0.0");
		assert_string_not_equal(config.address, "::");
		assert_true(strlen(config.address) > 0);
	}
}

static void an_unknown_key_is_named_with_its_line_and_the_allowed_ones(void **state)
{
	(void)state;
	REFUSED("[ferryd]\n# a comment\nlissen = 1\n", path, ":3: unknown key lissen in [ferryd]",
		"allowed: user, state_dir,", "login_delay");
	REFUSED("[copy]\nuser = x\n", ":2: unknown key user in [copy]",
		"allowed: sessions, request_size, in_flight");
}

static void an_unknown_section_is_named_even_when_it_is_empty(void **state)
{
	(void)state;
	REFUSED("[ferryd]\n[copi]\n", ":2: unknown section [copi]",
		"allowed: [ferryd], [migration], [pool], [copy], [tgt]");
	REFUSED("\n[Ferryd]\nuser = x\n", ":2: unknown section [Ferryd]");
	REFUSED("user = x\n", ":1: user stands before the first [section]");
}

static void a_bad_value_is_quoted_with_what_is_allowed(void **state)
{
	(void)state;
	REFUSED("[ferryd]\nworkers = 0\n", ":2: [ferryd] workers = \"0\" is not valid",
		"a number from 1 to 256");
	REFUSED("[ferryd]\nworkers = 8x\n", "\"8x\"");
	REFUSED("[ferryd]\nworkers =\n", "workers = \"\"");
	REFUSED("[ferryd]\nlisten = localhost:443\n", "localhost:443", "192.0.2.1:443");
	REFUSED("[ferryd]\nlisten = 1.2.3.4\n", "\"1.2.3.4\"");
	REFUSED("[ferryd]\nlisten = 1.2.3.4:65536\n", "65536");
	REFUSED("[ferryd]\ndata_port = 443\n", "1024");
	REFUSED("[ferryd]\ndata_port = 65536\n", "65535");
	REFUSED("[ferryd]\ndata_tls = no\n", "\"no\"", "on or off");
	REFUSED("[ferryd]\ndata_address = example.org\n", "a numeric IPv4 or IPv6 address");
	REFUSED("[ferryd]\naddress = a b\n", "\"a b\"");
	REFUSED("[ferryd]\nstate_dir = var/lib\n", "an absolute path of at most 1024 bytes");
	REFUSED("[ferryd]\nrun_dir = /run/0123456789012345678901234567890123456789012345\n",
		"an absolute path of at most 50 bytes");
	REFUSED("[ferryd]\nlog_level = loud\n", "error, warn, info or debug");
	REFUSED("[ferryd]\nlogin_delay = 5 s\n", "a duration from 0 to 1min");
	REFUSED("[ferryd]\nuser =\n", "a name without spaces");
	REFUSED("[migration]\nbandwidth = 1\n", "0 (unlimited) or a size from 64K to 1T");
	REFUSED("[copy]\nrequest_size = 5000\n", "a multiple of 4K");
	REFUSED("[ferryd]\npool_name = \xff\n", "UTF-8 text");
}

static void all_mistakes_are_said_at_once(void **state)
{
	(void)state;
	REFUSED("[ferryd]\nworkers = 0\nlog_level = loud\nnonsense\n[tgt]\nthreeds = 1\n",
		":2: [ferryd] workers", ":3: [ferryd] log_level", ":4: neither a [section]",
		":6: unknown key threeds");
}

static void a_key_given_twice_is_refused(void **state)
{
	(void)state;
	REFUSED("[ferryd]\nuser = a\nuser = b\n",
		":3: [ferryd] user is given a second time (\"b\")", "line 2");
	/* An indented line is not a continuation of the value above it. */
	REFUSED("[ferryd]\nuser = a\n  user = b\n", ":3: [ferryd] user is given a second time");
}

static void times_that_contradict_each_other_are_refused(void **state)
{
	(void)state;
	REFUSED("[migration]\nheartbeat = 10s\n", ":2: [migration] lease must be at least twice");
	REFUSED("[migration]\nlease = 1h\n", ":2: [migration] abandon must not be shorter");
	REFUSED("[copy]\nrequest_size = 1M\nin_flight = 512K\n",
		":3: [copy] in_flight must not be");
}

static void a_line_that_is_too_long_is_an_error_not_a_cut(void **state)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	(void)state;
	buf_append_string(&text, "[ferryd]\nstate_dir = /");
	for (int i = 0; i < 3000; i++)
		buf_append_char(&text, 'a');
	buf_append_string(&text, "\nworkers = 0\n");
	REFUSED(text.data, ":2: the line is longer than", ":3: [ferryd] workers = \"0\"");
}

static void a_nul_byte_hides_nothing(void **state)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	static const char text[] = "[ferryd]\nworkers = 4\0 0\nlog_level = debug\n";

	(void)state;
	write_bytes(text, sizeof(text) - 1);
	assert_int_equal(config_load(path, &config, &fault), -EINVAL);
	assert_non_null(strstr(fault.params[0], ":2: "));
}

static void a_missing_file_is_said_by_name(void **state)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	(void)state;
	assert_int_equal(config_load("/nonexistent/ferryd.conf", &config, &fault), -ENOENT);
	assert_non_null(strstr(fault.params[0], "/nonexistent/ferryd.conf"));
}

/* The value of `key = value` in the text, with or without '#' before it. */
static bool has_default(const char *text, const char *line)
{
	char *commented CLEANUP_FREE = xasprintf("\n#%s\n", line);

	return strstr(text, commented);
}

static void the_example_and_the_manual_page_have_every_key(void **state)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct buf example CLEANUP_BUF = BUF_INIT;
	struct buf page CLEANUP_BUF = BUF_INIT;
	struct buf printed CLEANUP_BUF = BUF_INIT;
	char *save;

	(void)state;
	assert_int_equal(
		io_read_file(FERRY_SOURCE "/docs/examples/ferryd.conf", 1 << 20, &example), 0);
	assert_int_equal(io_read_file(FERRY_SOURCE "/docs/man/ferryd.conf.5", 1 << 20, &page), 0);
	check_ok(&fault, config_load(FERRY_SOURCE "/docs/examples/ferryd.conf", &config, &fault));
	config_print(&config, &printed);
	for (char *line = strtok_r(printed.data, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save)) {
		if (*line == '[')
			continue;
		char *name CLEANUP_FREE = xstrndup(line, strcspn(line, " "));
		char *item CLEANUP_FREE = xasprintf("\n.It Cm %s ", name);
		/* Three defaults depend on the machine and are empty in the file. */
		char *empty CLEANUP_FREE = xasprintf("%s =", name);
		if (!has_default(example.data, line) && !has_default(example.data, empty))
			fail_msg("docs/examples/ferryd.conf lacks \"#%s\"", line);
		if (!strstr(page.data, item))
			fail_msg("docs/man/ferryd.conf.5 lacks %s", name);
	}
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, make_file, remove_file)
	const struct CMUnitTest tests[] = {
		T(an_empty_file_gives_the_documented_defaults),
		T(every_key_is_read),
		T(a_wildcard_is_not_an_address_for_peers),
		T(an_unknown_key_is_named_with_its_line_and_the_allowed_ones),
		T(an_unknown_section_is_named_even_when_it_is_empty),
		T(a_bad_value_is_quoted_with_what_is_allowed),
		T(all_mistakes_are_said_at_once),
		T(a_key_given_twice_is_refused),
		T(times_that_contradict_each_other_are_refused),
		T(a_line_that_is_too_long_is_an_error_not_a_cut),
		T(a_nul_byte_hides_nothing),
		T(a_missing_file_is_said_by_name),
		T(the_example_and_the_manual_page_have_every_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
