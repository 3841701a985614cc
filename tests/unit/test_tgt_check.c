/* SPDX-License-Identifier: Apache-2.0 */
/* Texts as tgtd 1.0.85 writes them, and as an initiator can make them look. */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "target/tgt_check.h"

#include <errno.h>
#include <stdlib.h>

static void addresses_are_numeric_and_not_the_wildcard(void **state)
{
	(void)state;
	assert_true(tgt_address_is_numeric("127.0.0.1"));
	assert_true(tgt_address_is_numeric("::1"));
	assert_true(tgt_address_is_numeric("fe80::1"));
	assert_false(tgt_address_is_numeric("0.0.0.0"));
	assert_false(tgt_address_is_numeric("::"));
	assert_false(tgt_address_is_numeric("localhost"));
	assert_false(tgt_address_is_numeric("127.0.0.1:3260"));
	assert_false(tgt_address_is_numeric("fe80::1%eth0"));
	assert_false(tgt_address_is_numeric(""));
}

static void only_the_one_portal_that_was_asked_is_accepted(void **state)
{
	static const char *const bad[] = {
		"",
		"Portal: 0.0.0.0:3260,1\nPortal: [::]:3260,1\n",
		"Portal: 0.0.0.0:3260,1\n",
		"Portal: 127.0.0.2:4000,1\n",
		"Portal: 127.0.0.1:4000,1\nPortal: 0.0.0.0:3260,1\n",
		"Portal: 127.0.0.1:4000,1\n\n",
		"Portal: 127.0.0.1:4000,1",
		"Portal: 127.0.0.1:0,1\n",
		"Portal: 127.0.0.1:70000,1\n",
		"Portal: 127.0.0.1:4000\n",
		"Portal: 127.0.0.1,1\n",
		"portal: 127.0.0.1:4000,1\n",
	};
	uint16_t port = 0;

	(void)state;
	assert_int_equal(tgt_parse_portal("Portal: 127.0.0.1:4000,1\n", "127.0.0.1", &port), 0);
	assert_int_equal(port, 4000);
	assert_int_equal(tgt_parse_portal("Portal: [::1]:65535,1\n", "::1", &port), 0);
	assert_int_equal(port, 65535);
	assert_int_equal(
		tgt_parse_portal("Portal: [fe80::1]:1,1\n", "fe80:0:0:0:0:0:0:1", &port), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tgt_parse_portal(bad[i], "127.0.0.1", &port), -EPROTO);
	assert_int_equal(port, 1);
	assert_int_equal(tgt_parse_portal("Portal: [::]:3260,1\n", "::1", &port), -EPROTO);
}

#define HEAD(tid, iqn)                                                                             \
	"Target " tid ": " iqn "\n"                                                                \
	"    System information:\n"                                                                \
	"        Driver: iscsi\n"                                                                  \
	"        State: ready\n"                                                                   \
	"        Nop interval: 5\n"                                                                \
	"        Nop count: 3\n"                                                                   \
	"    I_T nexus information:\n"
#define LUN(number, serial, readonly, store, path)                                                 \
	"        LUN: " number "\n"                                                                \
	"            Type: disk\n"                                                                 \
	"            SCSI ID: " serial "\n"                                                        \
	"            SCSI SN: " serial "\n"                                                        \
	"            Size: 17 MB, Block size: 512\n"                                               \
	"            Online: Yes\n"                                                                \
	"            Removable media: No\n"                                                        \
	"            Prevent removal: No\n"                                                        \
	"            Readonly: " readonly "\n"                                                     \
	"            SWP: No\n"                                                                    \
	"            Thin-provisioning: Yes\n"                                                     \
	"            Backing store type: " store "\n"                                              \
	"            Backing store path: " path "\n"                                               \
	"            Backing store flags: \n"
#define LUN0 LUN("0", "beaf10", "No", "null", "None")
#define TARGET(tid, iqn, readonly, path)                                                           \
	HEAD(tid, iqn)                                                                             \
	"    LUN information:\n" LUN0 LUN(                                                         \
		"1", "ser-1", readonly, "rdwr", path) "    Account information:\n"                 \
						      "        user.1\n"                           \
						      "    ACL information:\n"

static void a_target_is_found_among_others(void **state)
{
	const char *text = TARGET("1", "iqn.x:1", "Yes", "/a") TARGET("11", "iqn.x:11", "No",
		"/b") "        iqn.i\n" TARGET("2", "iqn.x:2", "No", "/c d");
	struct tgt_shown shown CLEANUP(tgt_shown_clear) = {0};

	(void)state;
	assert_int_equal(tgt_parse_target(text, 11, "iqn.x:11", &shown), 0);
	assert_string_equal(shown.path, "/b");
	assert_string_equal(shown.serial, "ser-1");
	assert_true(shown.writable && shown.rdwr);
	assert_int_equal(shown.block_size, 512);
	assert_int_equal(shown.n_luns, 2);
	assert_int_equal(shown.n_accounts, 1);
	assert_int_equal(shown.n_acl, 1);
	tgt_shown_clear(&shown);
	assert_int_equal(tgt_parse_target(text, 2, "iqn.x:2", &shown), 0);
	assert_string_equal(shown.path, "/c d");
	assert_int_equal(shown.n_acl, 0);
	tgt_shown_clear(&shown);
	/* What tgtd may not write it exports read-only, and says done. */
	assert_int_equal(tgt_parse_target(text, 1, "iqn.x:1", &shown), 0);
	assert_false(shown.writable);
}

static void a_target_that_is_not_there_is_not_found(void **state)
{
	struct tgt_shown shown = {0};

	(void)state;
	assert_int_equal(tgt_parse_target("", 1, "iqn.x:1", &shown), -ENOENT);
	assert_int_equal(
		tgt_parse_target(TARGET("11", "iqn.x:1", "No", "/a"), 1, "iqn.x:1", &shown),
		-ENOENT);
	assert_int_equal(tgt_parse_target(TARGET("1", "iqn.x:2", "No", "/a"), 1, "iqn.x:1", &shown),
		-EPROTO);
	assert_null(shown.path);
}

/* An alias may hold newlines: the peer of target 1 tries to speak for target 2. */
static void a_forged_section_is_refused(void **state)
{
	const char *text = HEAD(
		"1", "iqn.x:1") "        I_T nexus: 1\n"
				"            Initiator: iqn.i alias: x\n" TARGET("2", "iqn.x:2",
					"No", "/forged") "\n"
							 "    LUN information:\n" LUN0 TARGET(
								 "2", "iqn.x:2", "Yes", "/real");
	struct tgt_shown shown = {0};

	(void)state;
	assert_int_equal(tgt_parse_target(text, 2, "iqn.x:2", &shown), -EPROTO);
}

static void more_units_accounts_and_rules_are_counted(void **state)
{
	const char *text =
		HEAD("1", "iqn.x:1") "    LUN information:\n" LUN0 LUN("1", "s", "No", "aio", "/a")
			LUN("2", "t", "Yes", "rdwr", "/b") "    Account information:\n"
							   "        a\n"
							   "        b\n"
							   "    ACL information:\n"
							   "        ALL\n";
	struct tgt_shown shown CLEANUP(tgt_shown_clear) = {0};

	(void)state;
	assert_int_equal(tgt_parse_target(text, 1, "iqn.x:1", &shown), 0);
	assert_int_equal(shown.n_luns, 3);
	assert_int_equal(shown.n_accounts, 2);
	assert_int_equal(shown.n_acl, 1);
	/* Those of LUN 1, not of LUN 2. */
	assert_false(shown.rdwr);
	assert_true(shown.writable);
	assert_string_equal(shown.path, "/a");
}

#define CONNECTION(sid, cid)                                                                       \
	"Session: " sid "\n    Connection: " cid                                                   \
	"\n        Initiator: iqn.i\n        IP Address: ::1\n"

static void connections_are_read_exactly(void **state)
{
	static const char *const bad[] = {
		"Session: 1\n",
		"Session: x\n    Connection: 0\n        Initiator: i\n        IP Address: 1\n",
		"Session: 1\n    Connection: -1\n        Initiator: i\n        IP Address: 1\n",
		"Session: 1\n    Connection: 0\n        Initiator: i\n",
		"Session: 1\n    Connection: 0\n        Initiator: i\nSession: 2\n",
		CONNECTION("1", "0") "x",
	};
	struct tgt_connection found[2];

	(void)state;
	assert_int_equal(tgt_parse_connections("", found, 2), 0);
	const char *three =
		CONNECTION("7", "0") CONNECTION("65535", "4294967295") CONNECTION("9", "1");
	assert_int_equal(tgt_parse_connections(three, found, 2), 2);
	assert_int_equal(found[0].sid, 7);
	assert_int_equal(found[1].sid, 65535);
	assert_true(found[1].cid == UINT32_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tgt_parse_connections(bad[i], found, 2), -EPROTO);
}

#define STAT_HEAD                                                                                  \
	"tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) "                 \
	"wr_done(bytes,cmds) errs\n"

static void writes_are_done_when_all_counters_are_equal(void **state)
{
	static const char *const bad[] = {
		"",
		"something else\n",
		STAT_HEAD "  3   1   1   749   9   749   9   67108864   3   67108864   3\n",
		STAT_HEAD "  3   1   1   749   9   749   9   67108864   3   67108864   3   1   1\n",
		STAT_HEAD "  3   1   1   749   9   749   9   67108864   3   67108864   x   1\n",
		STAT_HEAD "  3   1   1   749   9   749   9   67108864   3   67108864   3   1",
	};
	bool done = false;

	(void)state;
	assert_int_equal(tgt_parse_writes_done(STAT_HEAD, &done), 0);
	assert_true(done);
	assert_int_equal(
		tgt_parse_writes_done(STAT_HEAD
			"  3   0   1   0   0   0   0   0   0   0   0   0\n"
			"  3   1   1   749   9   700   8   67108864   3   67108864   3   1\n",
			&done),
		0);
	assert_true(done);
	assert_int_equal(tgt_parse_writes_done(STAT_HEAD
				 "  3   1   1   749   9   749   9   67108864   3   512   2   1\n"
				 "  3   1   2   749   9   749   9   0   0   0   0   1\n",
				 &done),
		0);
	assert_false(done);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tgt_parse_writes_done(bad[i], &done), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_numeric_and_not_the_wildcard),
		cmocka_unit_test(only_the_one_portal_that_was_asked_is_accepted),
		cmocka_unit_test(a_target_is_found_among_others),
		cmocka_unit_test(a_target_that_is_not_there_is_not_found),
		cmocka_unit_test(a_forged_section_is_refused),
		cmocka_unit_test(more_units_accounts_and_rules_are_counted),
		cmocka_unit_test(connections_are_read_exactly),
		cmocka_unit_test(writes_are_done_when_all_counters_are_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
