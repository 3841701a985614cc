/* SPDX-License-Identifier: Apache-2.0 */
/* Exports of a real tgtd, seen by a real initiator. */
#include "tests/lib/check.h"
#include "tests/lib/target_fixture.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "target/disk.h"
#include "target/tgt_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <iscsi/scsi-lowlevel.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

static void add(struct fixture *fixture, uint32_t tid, struct export_identity *ret_identity)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_params params = fixture_export(fixture);

	check_ok(&fault, export_add(fixture->tgt, tid, &params, ret_identity, &fault));
}

/* tgtd closes every connection while it has no target at all; with one it says why it refuses. */
static void add_another(struct fixture *fixture)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *path CLEANUP_FREE = xasprintf("%s/another.img", fixture->images);
	struct export_params params = fixture_export(fixture);
	struct export_identity identity;

	params.iqn = IQN "-another";
	params.user = "another";
	params.path = path;
	check_ok(&fault, disk_create(path, SIZE, &fault));
	check_ok(&fault, export_add(fixture->tgt, 99, &params, &identity, &fault));
}

static struct iscsi_context *log_in(struct fixture *fixture)
{
	char *portal CLEANUP_FREE = fixture_portal(fixture, "127.0.0.1");
	struct login login = fixture_login(portal);
	char error[512] = "";
	struct iscsi_context *iscsi = login_open(&login, error, sizeof(error));

	if (!iscsi)
		print_error("login: %s\n", error);
	assert_non_null(iscsi);
	return iscsi;
}

static void log_out(struct iscsi_context *iscsi)
{
	iscsi_logout_sync(iscsi);
	iscsi_destroy_context(iscsi);
}

/* A task that must have ended well; freed here. */
static void check_task(struct scsi_task *task)
{
	assert_non_null(task);
	assert_int_equal(task->status, SCSI_STATUS_GOOD);
	scsi_free_scsi_task(task);
}

static int write_blocks(struct iscsi_context *iscsi, uint64_t lba, unsigned char byte, size_t n)
{
	unsigned char *data CLEANUP_FREE = malloc(n * DISK_SECTOR);

	memset(data, byte, n * DISK_SECTOR);
	struct scsi_task *task = iscsi_write16_sync(iscsi, EXPORT_LUN, lba, data,
		(uint32_t)(n * DISK_SECTOR), DISK_SECTOR, 0, 0, 0, 0, 0);
	int status = task ? task->status : -1;
	scsi_free_scsi_task(task);
	return status;
}

static void what_is_written_is_in_the_file(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;
	unsigned char data[2 * DISK_SECTOR];

	add(fixture, 1, &identity);
	struct iscsi_context *iscsi = log_in(fixture);
	assert_int_equal(write_blocks(iscsi, 7, 0xa5, 1), SCSI_STATUS_GOOD);
	check_task(iscsi_synchronizecache10_sync(iscsi, EXPORT_LUN, 0, 0, 0, 0));
	log_out(iscsi);
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	check_ok(&fault, export_settle(fixture->image, &identity, &fault));
	int fd CLEANUP_CLOSE = open(fixture->image, O_RDONLY);
	assert_int_equal(io_pread_full(fd, data, sizeof(data), 6 * DISK_SECTOR), 0);
	assert_int_equal(data[DISK_SECTOR - 1], 0);
	assert_int_equal(data[DISK_SECTOR], 0xa5);
	assert_int_equal(data[2 * DISK_SECTOR - 1], 0xa5);
	assert_false(tgt_is_lost(fixture->tgt));
}

static void its_size_serial_and_thinness_are_as_asked(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;

	add(fixture, 1, &identity);
	assert_int_equal(identity.size_bytes, SIZE);
	struct iscsi_context *iscsi = log_in(fixture);
	struct scsi_task *task = iscsi_readcapacity16_sync(iscsi, EXPORT_LUN);
	struct scsi_readcapacity16 *capacity = scsi_datain_unmarshall(task);
	assert_int_equal(capacity->block_length, DISK_SECTOR);
	assert_int_equal(capacity->returned_lba, SIZE / DISK_SECTOR - 1);
	assert_int_equal(capacity->lbpme, 1);
	check_task(task);
	task = iscsi_inquiry_sync(
		iscsi, EXPORT_LUN, 1, SCSI_INQUIRY_PAGECODE_UNIT_SERIAL_NUMBER, 255);
	struct scsi_inquiry_unit_serial_number *serial = scsi_datain_unmarshall(task);
	/* tgtd aligns it to the right of 36 characters. */
	assert_int_equal(strlen(serial->usn), 36);
	assert_string_equal(serial->usn + strspn(serial->usn, " "), SERIAL);
	check_task(task);
	log_out(iscsi);
}

static void unmap_punches_holes(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;
	struct unmap_list whole = {.lba = 0, .num = SIZE / DISK_SECTOR};
	struct disk_info before, after;

	add(fixture, 1, &identity);
	struct iscsi_context *iscsi = log_in(fixture);
	assert_int_equal(write_blocks(iscsi, 0, 1, 2048), SCSI_STATUS_GOOD);
	assert_int_equal(disk_inspect(fixture->image, &before, NULL), 0);
	assert_true(before.allocated_bytes >= MIB);
	check_task(iscsi_unmap_sync(iscsi, EXPORT_LUN, 0, 0, &whole, 1));
	assert_int_equal(disk_inspect(fixture->image, &after, NULL), 0);
	assert_true(after.allocated_bytes < 64 * 1024);
	log_out(iscsi);
}

static void large_sizes_are_offered(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;
	struct buf text CLEANUP_BUF = BUF_INIT;

	add(fixture, 1, &identity);
	struct iscsi_context *iscsi = log_in(fixture);
	struct tgt_request request = {.mode = TGT_MODE_TARGET, .op = TGT_OP_SHOW, .tid = 1};
	assert_int_equal(tgt_ask(fixture->tgt, &request, clock_deadline(USEC_PER_SEC), &text), 0);
	assert_non_null(strstr(text.data, "MaxRecvDataSegmentLength=262144\n"));
	assert_non_null(strstr(text.data, "MaxBurstLength=262144\n"));
	assert_non_null(strstr(text.data, "FirstBurstLength=262144\n"));
	assert_non_null(strstr(text.data, "InitialR2T=No\n"));
	assert_non_null(strstr(text.data, "nop_interval=5\n"));
	log_out(iscsi);
}

static void only_the_right_name_and_secret_log_in(void **state)
{
	struct fixture *fixture = *state;
	struct export_identity identity;
	char *portal CLEANUP_FREE = fixture_portal(fixture, "127.0.0.1");
	struct login right = fixture_login(portal);
	struct login login = right;

	add_another(fixture);
	assert_true(login_is_refused(&right, "Target not found"));
	add(fixture, 1, &identity);
	login.initiator = INITIATOR "2";
	assert_true(login_is_refused(&login, "Target not found"));
	login = right;
	login.user = NULL;
	assert_true(login_is_refused(&login, "Authentication failure"));
	login = right;
	login.secret = "0123456789abcdef0123456789abcdef";
	assert_true(login_is_refused(&login, "Authentication failure"));
	login = right;
	login.user = "someone-else";
	assert_true(login_is_refused(&login, "Authentication failure"));
	log_out(log_in(fixture));
}

static void ipv6_exports_work(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;

	if (access("/proc/net/if_inet6", R_OK) < 0)
		skip();
	check_ok(&fault, fixture_start(fixture, "::1", &fault));
	add(fixture, 1, &identity);
	char *portal CLEANUP_FREE = fixture_portal(fixture, "[::1]");
	struct login login = fixture_login(portal);
	char error[512];
	struct iscsi_context *iscsi = login_open(&login, error, sizeof(error));
	assert_non_null(iscsi);
	log_out(iscsi);
}

/* The export must be refused with that word, and leave a tgtd that exports the good disk. */
static void check_refused(
	struct fixture *fixture, const struct export_params *params, const char *word)
{
	static uint32_t tid = 100;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;
	struct buf text CLEANUP_BUF = BUF_INIT;

	assert_true(export_add(fixture->tgt, ++tid, params, &identity, &fault) < 0);
	if (!strstr(fault.params[0], word))
		print_error("%s\n", fault.params[0]);
	assert_non_null(strstr(fault.params[0], word));
	struct tgt_request show = {.mode = TGT_MODE_TARGET, .op = TGT_OP_SHOW, .tid = TGT_TID_ALL};
	assert_int_equal(tgt_ask(fixture->tgt, &show, clock_deadline(USEC_PER_SEC), &text), 0);
	assert_int_equal(text.length, 0);
}

static void hostile_names_and_values_are_refused(void **state)
{
	struct fixture *fixture = *state;
	char *long_secret CLEANUP_FREE = xasprintf("%0256d", 0);
	char *long_iqn CLEANUP_FREE = xasprintf("iqn.%0220d", 0);
	const struct {
		size_t field;
		const char *value;
		const char *word;
	} cases[] = {
		{offsetof(struct export_params, iqn), "iqn.2026-08.org.ferry:a_b", "target name"},
		{offsetof(struct export_params, iqn), "iqn.2026-08.org.ferry:A", "target name"},
		{offsetof(struct export_params, iqn), "", "target name"},
		{offsetof(struct export_params, iqn), NULL, "target name"},
		{offsetof(struct export_params, iqn), long_iqn, "target name"},
		{offsetof(struct export_params, initiator), "iqn.x,initiator-address=ALL",
			"initiator name"},
		{offsetof(struct export_params, path), "/tmp/a,bstype=null", "path"},
		{offsetof(struct export_params, path), "/tmp/a\nTarget 9: x", "path"},
		{offsetof(struct export_params, path), "relative.img", "path"},
		{offsetof(struct export_params, user), "a,b", "user"},
		{offsetof(struct export_params, secret), "too short", "secret"},
		{offsetof(struct export_params, secret), "a newline\n in the secret", "secret"},
		{offsetof(struct export_params, secret), long_secret, "secret"},
		{offsetof(struct export_params, serial), "a,readonly=1", "serial"},
		{offsetof(struct export_params, serial), "0123456789012345678901234567890123456",
			"serial"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct export_params params = fixture_export(fixture);
		*(const char **)((char *)&params + cases[i].field) = cases[i].value;
		check_refused(fixture, &params, cases[i].word);
	}
}

static void a_secret_is_never_in_an_error(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_params params = fixture_export(fixture);
	struct export_identity identity;

	params.secret = "tell-nobody\t";
	assert_int_equal(export_add(fixture->tgt, 1, &params, &identity, &fault), -EINVAL);
	assert_null(strstr(fault.params[0], "tell-nobody"));
}

static void files_that_are_no_disk_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct export_params params = fixture_export(fixture);
	char *other CLEANUP_FREE = xasprintf("%s/other", fixture->images);

	assert_int_equal(truncate(fixture->image, 0), 0);
	params.size_bytes = 0;
	check_refused(fixture, &params, "has 0 bytes");
	assert_int_equal(truncate(fixture->image, SIZE + 100), 0);
	params.size_bytes = SIZE + 100;
	check_refused(fixture, &params, "multiple of 512");
	assert_int_equal(truncate(fixture->image, SIZE), 0);
	check_refused(fixture, &params, "were announced");
	params.size_bytes = SIZE;
	assert_int_equal(link(fixture->image, other), 0);
	check_refused(fixture, &params, "2 names");
	unlink(other);
	params.path = other;
	check_refused(fixture, &params, "No such file");
	assert_int_equal(symlink(fixture->image, other), 0);
	check_refused(fixture, &params, "symbolic links");
	unlink(other);
	assert_int_equal(mkfifo(other, 0600), 0);
	check_refused(fixture, &params, "not a regular file");
	params.path = fixture->images;
	check_refused(fixture, &params, "cannot be opened");
}

static void a_file_that_may_not_be_written_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct export_params params = fixture_export(fixture);

	assert_int_equal(chmod(fixture->image, 0400), 0);
	check_refused(fixture, &params, "Permission denied");
}

static void a_target_number_is_used_once(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_params params = fixture_export(fixture);
	struct export_identity identity;

	assert_int_equal(export_add(fixture->tgt, 0, &params, &identity, &fault), -EINVAL);
	add(fixture, 1, &identity);
	assert_int_equal(export_add(fixture->tgt, 1, &params, &identity, &fault), -EEXIST);
	/* The same name or account again: refused by tgtd, and the first one stays. */
	assert_int_equal(export_add(fixture->tgt, 2, &params, &identity, &fault), -EEXIST);
	params.iqn = IQN "2";
	assert_int_equal(export_add(fixture->tgt, 3, &params, &identity, &fault), -EREMOTEIO);
	log_out(log_in(fixture));
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	assert_int_equal(export_add(fixture->tgt, 1, &params, &identity, &fault), -EEXIST);
	params = fixture_export(fixture);
	check_ok(&fault, export_add(fixture->tgt, 4, &params, &identity, &fault));
}

static void withdrawing_twice_or_what_never_was_is_fine(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;

	add(fixture, 1, &identity);
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	check_ok(&fault, export_withdraw(fixture->tgt, 9, "nobody", &fault));
	assert_false(tgt_is_lost(fixture->tgt));
	assert_int_equal(kill(tgt_pid(fixture->tgt), SIGKILL), 0);
	assert_true(fixture_await_lost(fixture, 2));
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	struct export_params params = fixture_export(fixture);
	assert_true(export_add(fixture->tgt, 2, &params, &identity, &fault) < 0);
	assert_non_null(strstr(fault.params[0], "tgtd has ended"));
}

static void an_idle_session_is_kicked_and_cannot_come_back(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;
	char *portal CLEANUP_FREE = fixture_portal(fixture, "127.0.0.1");
	struct login login = fixture_login(portal);

	add_another(fixture);
	add(fixture, 1, &identity);
	struct iscsi_context *iscsi = log_in(fixture);
	uint64_t begin = clock_now_usec();
	check_ok(&fault, export_withdraw(fixture->tgt, 1, USER, &fault));
	assert_true(clock_now_usec() - begin < USEC_PER_SEC);
	assert_int_not_equal(write_blocks(iscsi, 0, 1, 1), SCSI_STATUS_GOOD);
	iscsi_destroy_context(iscsi);
	assert_true(login_is_refused(&login, "Target not found"));
	assert_false(tgt_is_lost(fixture->tgt));
}

/* The peer of the first disk forges lines in what tgtd shows, before the second is exported. */
static void an_alias_with_newlines_cannot_speak_for_another_disk(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *second CLEANUP_FREE = xasprintf("%s/second.img", fixture->images);
	char *portal CLEANUP_FREE = fixture_portal(fixture, "127.0.0.1");
	struct export_params params = fixture_export(fixture);
	struct export_identity identity;

	add(fixture, 1, &identity);
	check_ok(&fault, disk_create(second, SIZE, &fault));
	struct iscsi_context *iscsi = iscsi_create_context(INITIATOR);
	iscsi_set_alias(iscsi, "x\nTarget 2: " IQN "2\n    LUN information:\n        LUN: 1\n");
	iscsi_set_noautoreconnect(iscsi, 1);
	iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_targetname(iscsi, IQN);
	iscsi_set_initiator_username_pwd(iscsi, USER, SECRET);
	assert_int_equal(iscsi_full_connect_sync(iscsi, portal, EXPORT_LUN), 0);
	params.iqn = IQN "2";
	params.user = "d1.test";
	params.path = second;
	assert_int_equal(export_add(fixture->tgt, 2, &params, &identity, &fault), -EPROTO);
	assert_non_null(strstr(fault.params[0], "more than once"));
	log_out(iscsi);
	check_ok(&fault, export_add(fixture->tgt, 3, &params, &identity, &fault));
}

static void a_file_swapped_behind_our_back_is_seen(void **state)
{
	struct fixture *fixture = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct export_identity identity;
	char *other CLEANUP_FREE = xasprintf("%s/other", fixture->images);

	add(fixture, 1, &identity);
	check_ok(&fault, export_settle(fixture->image, &identity, &fault));
	/* A second name, another size, a link, another file of the same name and size, none. */
	assert_int_equal(link(fixture->image, other), 0);
	assert_int_equal(export_settle(fixture->image, &identity, &fault), -ESTALE);
	unlink(other);
	assert_int_equal(truncate(fixture->image, SIZE + DISK_SECTOR), 0);
	assert_int_equal(export_settle(fixture->image, &identity, &fault), -ESTALE);
	assert_int_equal(truncate(fixture->image, SIZE), 0);
	check_ok(&fault, export_settle(fixture->image, &identity, &fault));
	check_ok(&fault, disk_create(other, SIZE, &fault));
	assert_int_equal(rename(other, fixture->image), 0);
	assert_int_equal(export_settle(fixture->image, &identity, &fault), -ESTALE);
	assert_non_null(strstr(fault.params[0], "replaced"));
	assert_int_equal(rename(fixture->image, other), 0);
	assert_int_equal(symlink(other, fixture->image), 0);
	assert_int_equal(export_settle(fixture->image, &identity, &fault), -ELOOP);
	unlink(fixture->image);
	assert_int_equal(export_settle(fixture->image, &identity, &fault), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_tgt, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_in_the_file),
		TEST(its_size_serial_and_thinness_are_as_asked),
		TEST(unmap_punches_holes),
		TEST(large_sizes_are_offered),
		TEST(only_the_right_name_and_secret_log_in),
		cmocka_unit_test_setup_teardown(ipv6_exports_work, fixture_setup, fixture_teardown),
		TEST(hostile_names_and_values_are_refused),
		TEST(a_secret_is_never_in_an_error),
		TEST(files_that_are_no_disk_are_refused),
		TEST(a_file_that_may_not_be_written_is_refused),
		TEST(a_target_number_is_used_once),
		TEST(withdrawing_twice_or_what_never_was_is_fine),
		TEST(an_idle_session_is_kicked_and_cannot_come_back),
		TEST(an_alias_with_newlines_cannot_speak_for_another_disk),
		TEST(a_file_swapped_behind_our_back_is_seen),
	};

	if (access(TGTD, X_OK) < 0)
		return 77;
	return cmocka_run_group_tests(tests, fixture_drop_privileges, NULL);
}
