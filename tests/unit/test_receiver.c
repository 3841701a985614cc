/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving side without a target: what is decided, and what a call out of order may not do. */
#include "tests/lib/points.h"
#include "tests/lib/storage_fixture.h"

#include "agent/copy/digest.h"
#include "agent/migrate/receiver.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>

#define DISK_BYTES (1 << 20)

struct world {
	struct fixture *fixture;
	struct supervisor_params params;
	char run_dir[80];
	struct migration *m;
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	int r = fixture_setup((void **)&w->fixture);

	snprintf(w->run_dir, sizeof(w->run_dir), "%s/run", w->fixture->folder);
	if (r < 0 || mkdir(w->run_dir, 0700) < 0)
		return -1;
	w->params = (struct supervisor_params){.storage = &w->fixture->storage,
		.run_dir = w->run_dir,
		.data_address = "127.0.0.1"};
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	struct fixture *fixture = w->fixture;

	migration_unref(w->m);
	free(w);
	return fixture_teardown((void **)&fixture);
}

static struct migration *open_migration(
	struct world *w, const char *uuid, enum migration_state state, struct value *disks)
{
	struct value *manifest = value_new_struct();
	struct value *vm = value_set_string(value_new_struct(), "name_label", "guest");
	struct migration_row row = {.uuid = xstrdup(uuid),
		.role = ROLE_RECEIVER,
		.state = state,
		.document = value_new_struct()};

	value_set(manifest, "vm", vm);
	value_set(row.document, "manifest", manifest);
	value_set(row.document, "disks", disks);
	check_ok(&w->fixture->fault,
		migration_insert(w->fixture->storage.agent, &row, &w->fixture->fault));
	struct migration *m = migration_new(&w->params, &row);
	migration_row_clear(&row);
	return m;
}

/* A receiver with one disk, made as ALLOCATING makes it. */
static void open_receiver(struct world *w, enum migration_state state)
{
	char *uuid CLEANUP_FREE = uuid_new();
	char *vdi_uuid CLEANUP_FREE = uuid_new();
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	struct value *disk = value_new_struct();
	struct stat st;

	check_ok(&w->fixture->fault,
		storage_prepare_disk(&w->fixture->storage, uuid, fixture_sr(w->fixture), vdi_uuid,
			DISK_BYTES, 0, &location, &path, &w->fixture->fault));
	assert_int_equal(stat(path, &st), 0);
	value_set_string(disk, "sr", fixture_sr(w->fixture));
	value_set_string(disk, "uuid", vdi_uuid);
	value_set_string(disk, "location", location);
	value_set_string(disk, "path", path);
	value_set_int(disk, "size", DISK_BYTES);
	value_set_int(disk, "device", (int64_t)st.st_dev);
	value_set_int(disk, "inode", (int64_t)st.st_ino);
	w->m = open_migration(w, uuid, state, value_append(value_new_array(), disk));
}

static void put_another_file(struct world *w)
{
	struct value *disks CLEANUP_VALUE = migration_get(w->m, "disks");
	const char *path = value_find_string(disks->array.items[0], "path", "");
	char *other CLEANUP_FREE = xasprintf("%s.other", path);
	FILE *file CLEANUP_FCLOSE = fopen(other, "w");

	assert_non_null(file);
	assert_int_equal(ftruncate(fileno(file), DISK_BYTES), 0);
	assert_int_equal(rename(other, path), 0);
}

/* 1 committed, 0 aborted, -1 undecided. */
static int decision(struct world *w)
{
	bool committed = false;

	int r = commit_find(
		w->fixture->storage.pool, w->m->uuid, &committed, NULL, NULL, &w->fixture->fault);
	return r <= 0 ? -1 : committed;
}

static void a_finish_before_the_commit_keeps_the_disks(void **state)
{
	static const enum migration_state states[] = {STATE_RECEIVING, STATE_SEALED};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		open_receiver(w, states[i]);
		assert_int_equal(receiver_finish(w->m, &w->fixture->fault), -EINVAL);
		assert_int_equal(fixture_count_files(w->fixture), i + 1);
		assert_int_equal(migration_state(w->m), states[i]);
		w->m = migration_unref(w->m);
	}
}

static void a_commit_imports_the_vm_and_is_answered_again(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_SEALED);
	for (int i = 0; i < 2; i++) {
		check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
		assert_int_equal(migration_state(w->m), STATE_COMMITTED);
		assert_int_equal(fixture_count(w->fixture, "VM"), 1);
		assert_int_equal(fixture_count(w->fixture, "VDI"), 1);
	}
	assert_int_equal(decision(w), 1);
	assert_int_equal(receiver_seal(w->m, NULL, &w->fixture->fault), -EINVAL);
	assert_int_equal(receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault), -EALREADY);
	check_ok(&w->fixture->fault, receiver_finish(w->m, &w->fixture->fault));
	assert_int_equal(fixture_count_files(w->fixture), 1);
	assert_int_equal(fixture_count_journal(w->fixture), 0);
}

static void a_disk_that_went_after_the_seal_stops_the_commit(void **state)
{
	struct world *w = *state;
	struct value *disks CLEANUP_VALUE = NULL;

	open_receiver(w, STATE_SEALED);
	disks = migration_get(w->m, "disks");
	assert_int_equal(unlink(value_find_string(disks->array.items[0], "path", "")), 0);
	assert_true(receiver_commit(w->m, &w->fixture->fault) < 0);
	assert_int_equal(decision(w), 0);
	assert_int_equal(migration_state(w->m), STATE_FAILED);
	assert_int_equal(fixture_count(w->fixture, "VM"), 0);
}

/* A second flush would succeed, and prove nothing about what the first could not write. */
static void a_seal_that_failed_is_not_tried_again(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_RECEIVING);
	put_another_file(w);
	assert_int_equal(receiver_seal(w->m, NULL, &w->fixture->fault), -ESTALE);
	assert_int_equal(decision(w), 0);
	assert_int_equal(migration_state(w->m), STATE_FAILED);
	assert_int_equal(receiver_seal(w->m, NULL, &w->fixture->fault), -EINVAL);
	assert_int_equal(fixture_count_files(w->fixture), 0);
}

static void what_cannot_be_sealed_now_is_not_undone_by_the_call(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_ALLOCATING);
	assert_int_equal(receiver_seal(w->m, NULL, &w->fixture->fault), -EINVAL);
	assert_int_equal(receiver_commit(w->m, &w->fixture->fault), -EINVAL);
	assert_int_equal(decision(w), -1);
	assert_int_equal(migration_state(w->m), STATE_ALLOCATING);
}

/* --- The VM as it is at the seal ----------------------------------------------------------- */

static struct value *renewed_manifest(const char *name, const char *uuid, const char *disk)
{
	struct value *manifest = value_new_struct();
	struct value *vbd = value_new_struct();

	value_set_string(vbd, "userdevice", "0");
	value_set_string(vbd, "disk", disk);
	value_set(manifest, "vm",
		value_set_string(
			value_set_string(value_new_struct(), "name_label", name), "uuid", uuid));
	value_set(manifest, "vbds", value_append(value_new_array(), vbd));
	value_set(manifest, "vifs", value_new_array());
	return manifest;
}

static int seal_with(struct world *w, struct value *manifest)
{
	struct value *owned CLEANUP_VALUE = manifest;

	fault_clear(&w->fixture->fault);
	return receiver_seal(w->m, owned, &w->fixture->fault);
}

static void a_vm_that_was_renamed_meanwhile_keeps_its_name(void **state)
{
	struct world *w = *state;
	char *uuid CLEANUP_FREE = uuid_new();
	char *other CLEANUP_FREE = uuid_new();
	char *vm CLEANUP_FREE = NULL;

	open_receiver(w, STATE_RECEIVING);
	migration_set(w->m, "manifest", renewed_manifest("before", uuid, "0"));
	/* What is no renewal changes nothing, and can be said again rightly. */
	assert_int_equal(seal_with(w, renewed_manifest("now", other, "0")), -EINVAL);
	assert_int_equal(seal_with(w, renewed_manifest("now", uuid, "-1")), -EINVAL);
	assert_int_equal(migration_state(w->m), STATE_RECEIVING);
	check_ok(&w->fixture->fault, seal_with(w, renewed_manifest("now", uuid, "0")));
	assert_int_equal(migration_state(w->m), STATE_SEALED);
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	check_ok(&w->fixture->fault,
		object_get_by_uuid(w->fixture->storage.pool, "VM", uuid, &vm, &w->fixture->fault));
	struct value *record CLEANUP_VALUE = fixture_record(w->fixture, "VM", vm);
	assert_string_equal(value_find_string(record, "name_label", ""), "now");
}

/* --- Digests of extents -------------------------------------------------------------------- */

static void write_to_disk(struct world *w, off_t offset, const void *data, size_t length)
{
	struct value *disks CLEANUP_VALUE = migration_get(w->m, "disks");
	FILE *file CLEANUP_FCLOSE =
		fopen(value_find_string(disks->array.items[0], "path", ""), "r+");

	assert_non_null(file);
	assert_int_equal(pwrite(fileno(file), data, length, offset), length);
}

static void digests_are_those_of_the_extents_that_were_asked_for(void **state)
{
	struct world *w = *state;
	unsigned char data[4096], digest[DIGEST_BYTES];
	struct value *answer CLEANUP_VALUE = NULL;
	char expected[2 * 2 * DIGEST_BYTES + 1];

	open_receiver(w, STATE_RECEIVING);
	memset(data, 7, sizeof(data));
	write_to_disk(w, 8192, data, sizeof(data));
	digest_chunk(data, sizeof(data), digest);
	for (size_t i = 0; i < DIGEST_BYTES; i++)
		snprintf(expected + 2 * i, 3, "%02x", digest[i]);
	memset(expected + 2 * DIGEST_BYTES, '0', 2 * DIGEST_BYTES);
	expected[sizeof(expected) - 1] = '\0';
	check_ok(&w->fixture->fault,
		receiver_digest_extents(w->m, 0, "8192 4096 0 512", &answer, &w->fixture->fault));
	assert_string_equal(value_find_string(answer, "digests", ""), expected);
}

static void extents_that_are_none_are_refused(void **state)
{
	static const char *const texts[] = {"", " ", "0", "0 ", " 0 512", "0 512 ", "0  512",
		"0 512 512", "0 -512", "-512 512", "+0 512", "0x0 512", "0 0", "0 513", "1 512",
		"0\t512", "0 1049088", "1048576 512", "18446744073709551104 1024",
		"18446744073709551616 512", "0 99999999999999999999999999999999"};
	struct world *w = *state;
	struct value *answer = NULL;

	open_receiver(w, STATE_RECEIVING);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		fault_clear(&w->fixture->fault);
		int r = receiver_digest_extents(w->m, 0, texts[i], &answer, &w->fixture->fault);
		if (r >= 0)
			fail_msg("\"%s\" was taken", texts[i]);
		assert_non_null(w->fixture->fault.code);
	}
	assert_int_equal(
		receiver_digest_extents(w->m, 1, "0 512", &answer, &w->fixture->fault), -EINVAL);
	w->m = migration_unref(w->m);
	open_receiver(w, STATE_ALLOCATING);
	assert_int_equal(
		receiver_digest_extents(w->m, 0, "0 512", &answer, &w->fixture->fault), -EINVAL);
}

/* --- A cancel against the commit ----------------------------------------------------------- */

struct canceller {
	struct migration *m;
	pthread_t thread;
	bool accepted;
	_Atomic bool answered;
};

static struct canceller *in_the_import;

static void *cancel_now(void *arg)
{
	struct canceller *canceller = arg;

	canceller->accepted = migration_request_cancel(canceller->m, "operator");
	canceller->answered = true;
	return NULL;
}

int __real_metadata_import(struct pool_db *pool, const struct value *manifest,
	const struct value *disks, bool new_identity, char **ret_vm, struct fault *fault);
int __wrap_metadata_import(struct pool_db *pool, const struct value *manifest,
	const struct value *disks, bool new_identity, char **ret_vm, struct fault *fault);

int __wrap_metadata_import(struct pool_db *pool, const struct value *manifest,
	const struct value *disks, bool new_identity, char **ret_vm, struct fault *fault)
{
	if (in_the_import) {
		pthread_create(&in_the_import->thread, NULL, cancel_now, in_the_import);
		cancel_sleep(NULL, 100 * USEC_PER_MSEC);
		assert_false(in_the_import->answered);
	}
	return __real_metadata_import(pool, manifest, disks, new_identity, ret_vm, fault);
}

static void a_cancel_during_the_commit_learns_the_outcome(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_SEALED);
	struct canceller canceller = {.m = w->m};
	in_the_import = &canceller;
	int r = receiver_commit(w->m, &w->fixture->fault);
	in_the_import = NULL;
	pthread_join(canceller.thread, NULL);
	check_ok(&w->fixture->fault, r);
	assert_false(canceller.accepted);
	assert_int_equal(migration_state(w->m), STATE_COMMITTED);
}

static void a_cancel_before_the_commit_stops_it(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_SEALED);
	assert_true(migration_request_cancel(w->m, "operator"));
	assert_true(receiver_commit(w->m, &w->fixture->fault) < 0);
	assert_int_equal(decision(w), 0);
	assert_int_equal(migration_state(w->m), STATE_CANCELLED);
	assert_int_equal(fixture_count(w->fixture, "VM"), 0);
	assert_int_equal(fixture_count_files(w->fixture), 0);
}

static int decide(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct world *w = arg;
	char *vm CLEANUP_FREE = NULL;
	struct value *fields CLEANUP_VALUE = value_new_struct();
	bool committed;

	int r = object_create(pool, "VM", fields, &vm, fault);
	return r < 0 ? r : commit_decide(pool, w->m->uuid, true, vm, &committed, NULL, fault);
}

/* The daemon died between the commit in pool.db and its note in agent.db. */
static void a_commit_that_was_decided_is_noted_whatever_was_asked_since(void **state)
{
	struct world *w = *state;

	open_receiver(w, STATE_SEALED);
	check_ok(&w->fixture->fault,
		pool_db_transaction(w->fixture->storage.pool, decide, w, &w->fixture->fault));
	assert_true(migration_request_cancel(w->m, "operator"));
	assert_int_equal(receiver_abort(w->m, EVENT_CANCEL, &w->fixture->fault), -EALREADY);
	check_ok(&w->fixture->fault, receiver_commit(w->m, &w->fixture->fault));
	assert_int_equal(migration_state(w->m), STATE_COMMITTED);
}

#ifdef FERRY_INJECT
/* Asked for again, as the keeper does, it ends with nothing left, whichever call of a database
 * failed the first time. */
static void end_in_spite_of(struct world *w, const char *point, unsigned after)
{
	char *rule CLEANUP_FREE = xasprintf("error EBUSY after=%u", after);
	char *folder CLEANUP_FREE = NULL;
	struct resource_row *rows = NULL;
	struct points points;
	size_t n = 0;

	open_receiver(w, STATE_RECEIVING);
	folder = xasprintf("%s/t%.13s", w->run_dir, w->m->uuid);
	check_ok(&w->fixture->fault, resource_record(w->fixture->storage.agent, w->m->uuid, "tgtd",
					     folder, NULL, NULL, &w->fixture->fault));
	points_open(&points);
	points_arm(&points, point, rule);
	int r = receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault);
	bool was_met = points_passed(&points, point) > after;
	points_close(&points);
	/* A failure is told: else nobody would come back to what is left. */
	assert_true(r == 0 || was_met);
	assert_int_equal(r == 0, migration_state(w->m) == STATE_FAILED);
	check_ok(&w->fixture->fault, receiver_abort(w->m, EVENT_FAILED, &w->fixture->fault));
	check_ok(&w->fixture->fault, resource_list(w->fixture->storage.agent, w->m->uuid, NULL,
					     &rows, &n, &w->fixture->fault));
	free(rows);
	assert_int_equal(n, 0);
	assert_int_equal(fixture_count_files(w->fixture), 0);
	assert_int_equal(decision(w), 0);
	w->m = migration_unref(w->m);
}

static void an_abort_leaves_nothing_whichever_store_fails(void **state)
{
	static const char *const names[] = {"db.agent.begin", "db.agent.step", "db.agent.commit",
		"db.pool.begin", "db.pool.step", "db.pool.commit", "disk.remove"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		for (unsigned after = 0; after < 16; after++)
			end_in_spite_of(*state, names[i], after);
}
#endif

/* --- tgtd's folders -------------------------------------------------------------------------- */

/* The names of the folders are made of the first part of the uuid. */
static void a_like_named_migration_loses_nothing(void **state)
{
	struct world *w = *state;
	char *theirs CLEANUP_FREE = xasprintf("%s/t01234567-89ab", w->run_dir);
	struct stat st;

	struct migration *other = open_migration(
		w, "01234567-89ab-4000-8000-000000000001", STATE_RECEIVING, value_new_array());
	check_ok(&w->fixture->fault, resource_record(w->fixture->storage.agent, other->uuid, "tgtd",
					     theirs, NULL, NULL, &w->fixture->fault));
	assert_int_equal(mkdir(theirs, 0700), 0);
	w->m = open_migration(
		w, "01234567-89ab-4000-8000-000000000002", STATE_RECEIVING, value_new_array());
	receiver_withdraw(w->m, NULL);
	assert_int_equal(stat(theirs, &st), 0);
	receiver_withdraw(other, NULL);
	assert_int_equal(stat(theirs, &st), -1);
	migration_unref(other);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(a_finish_before_the_commit_keeps_the_disks),
		CASE(a_commit_imports_the_vm_and_is_answered_again),
		CASE(a_disk_that_went_after_the_seal_stops_the_commit),
		CASE(a_seal_that_failed_is_not_tried_again),
		CASE(what_cannot_be_sealed_now_is_not_undone_by_the_call),
		CASE(a_vm_that_was_renamed_meanwhile_keeps_its_name),
		CASE(digests_are_those_of_the_extents_that_were_asked_for),
		CASE(extents_that_are_none_are_refused),
		CASE(a_cancel_during_the_commit_learns_the_outcome),
		CASE(a_cancel_before_the_commit_stops_it),
		CASE(a_commit_that_was_decided_is_noted_whatever_was_asked_since),
#ifdef FERRY_INJECT
		CASE(an_abort_leaves_nothing_whichever_store_fails),
#endif
		CASE(a_like_named_migration_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
