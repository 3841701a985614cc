/* SPDX-License-Identifier: Apache-2.0 */
/* Beginning and recovering, with a destination that only answers. */
#include "tests/lib/storage_fixture.h"

#include "agent/migrate/peer.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/supervisor_internal.h"
#include "agent/vm/operations.h"
#include "base/clock.h"
#include "base/uuid.h"

#include <errno.h>

struct world {
	struct fixture *fixture;
	struct supervisor_params params;
	struct supervisor *supervisor;
	char run_dir[80];
	char *vm;
	const char *their_tls; /* what the token says */
};

static struct world *world; /* for the destination */
static void (*during_the_dry_run)(struct world *w);

int __wrap_peer_call(struct peer *peer, const char *verb, const char *migration, struct value *args,
	uint64_t timeout_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault);

/* The destination: takes everything, has nothing. */
int __wrap_peer_call(struct peer *peer, const char *verb, const char *migration, struct value *args,
	uint64_t timeout_usec, struct cancel *cancel, struct value **ret_result,
	struct fault *fault)
{
	(void)peer, (void)timeout_usec, (void)cancel, (void)fault;
	if (strcmp(verb, "prepare") == 0 && !*migration && during_the_dry_run)
		during_the_dry_run(world);
	value_free(args);
	*ret_result = value_new_struct();
	return 0;
}

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	if (fixture_setup((void **)&w->fixture) < 0)
		return -1;
	snprintf(w->run_dir, sizeof(w->run_dir), "%s/run", w->fixture->folder);
	if (mkdir(w->run_dir, 0700) < 0)
		return -1;
	w->params = (struct supervisor_params){
		.storage = &w->fixture->storage,
		.run_dir = w->run_dir,
		.data_address = "127.0.0.1",
		.max_sending = 1,
		.heartbeat_usec = USEC_PER_SEC,
		.lease_usec = 60 * USEC_PER_SEC,
		.abandon_usec = 60 * USEC_PER_SEC,
		.peer_timeout_usec = USEC_PER_SEC,
	};
	free(fixture_object(w->fixture, "pool", value_new_struct()));
	w->vm = fixture_object(
		w->fixture, "VM", value_set_string(value_new_struct(), "power_state", "Halted"));
	w->supervisor = supervisor_new(&w->params);
	w->their_tls = "on";
	world = w;
	during_the_dry_run = NULL;
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	struct fixture *fixture = w->fixture;

	supervisor_stop(w->supervisor);
	free(w->vm);
	free(w);
	return fixture_teardown((void **)&fixture);
}

static int migrate(struct world *w)
{
	static const char *const keys[] = {"SM", "host", "xenops", "session_id", "master",
		"ferry_fingerprint", "ferry_data_address", "ferry_data_tls"};
	struct value *token CLEANUP_VALUE = value_new_struct();
	struct value *none CLEANUP_VALUE = value_new_struct();
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	char *vm CLEANUP_FREE = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		value_set_string(token, keys[i], "https://127.0.0.1:1");
	value_set_string(token, "ferry_protocol", PEER_PROTOCOL);
	value_set_string(token, "ferry_data_tls", w->their_tls);
	const struct migrate_request request = {.operation = "migrate_send",
		.vm = w->vm,
		.dest = token,
		.vdi_map = none,
		.vif_map = none,
		.options = none};
	return supervisor_migrate_send(
		w->supervisor, &request, "", cancel, &vm, &w->fixture->fault);
}

static size_t count_rows(struct world *w)
{
	struct migration_row *rows = NULL;
	size_t n = 0;

	check_ok(&w->fixture->fault,
		migration_list(w->fixture->storage.agent, false, &rows, &n, &w->fixture->fault));
	for (size_t i = 0; i < n; i++)
		migration_row_clear(&rows[i]);
	free(rows);
	return n;
}

static void check_nothing_left(struct world *w)
{
	struct value *refs CLEANUP_VALUE = NULL;

	/* The thread forgets it a moment after the answer. */
	for (int i = 0; i < 100 && count_rows(w); i++)
		cancel_sleep(NULL, 50 * USEC_PER_MSEC);
	assert_int_equal(count_rows(w), 0);
	check_ok(&w->fixture->fault, vm_check_operation(w->fixture->storage.pool, w->vm,
					     "migrate_send", &w->fixture->fault));
	check_ok(&w->fixture->fault, object_find(w->fixture->storage.pool, "migration", "state",
					     "FAILED", &refs, &w->fixture->fault));
	assert_int_equal(refs->array.n_items, 1);
	assert_int_equal(fixture_count(w->fixture, "migration"), 1);
}

/* Neither side decides alone that disks go in the clear. */
static void data_tls_must_be_the_same_at_both_sides(void **state)
{
	struct world *w = *state;

	w->their_tls = "off";
	assert_int_equal(migrate(w), -EPROTONOSUPPORT);
	assert_non_null(strstr(w->fixture->fault.params[0], "data_tls is \"on\" here"));
	fault_clear(&w->fixture->fault);
	w->params.plain_data = true;
	w->their_tls = "on";
	assert_int_equal(migrate(w), -EPROTONOSUPPORT);
	assert_non_null(strstr(w->fixture->fault.params[0], "data_tls is \"off\" here"));
	assert_int_equal(count_rows(w), 0);
}

static void add_a_disk(struct world *w)
{
	char *vdi CLEANUP_FREE = fixture_new_vdi(w->fixture, 1 << 20);
	struct value *vbd = value_set_string(value_new_struct(), "VM", w->vm);

	free(fixture_object(w->fixture, "VBD", value_set_string(vbd, "VDI", vdi)));
}

/* It would have stayed behind, and its VBD been lost. */
static void a_disk_that_came_after_the_plan_stops_the_migration(void **state)
{
	struct world *w = *state;

	during_the_dry_run = add_a_disk;
	assert_true(migrate(w) < 0);
	assert_non_null(strstr(w->fixture->fault.params[0], "migrate it again"));
	check_nothing_left(w);
	assert_int_equal(fixture_count(w->fixture, "VBD"), 1);
}

static void stop_the_daemon(struct world *w)
{
	supervisor_close(w->supervisor);
}

/* Its client was told that it failed: no later start may go on with it. */
static void a_sender_that_cannot_start_leaves_nothing(void **state)
{
	struct world *w = *state;

	during_the_dry_run = stop_the_daemon;
	assert_int_equal(migrate(w), -ESHUTDOWN);
	check_nothing_left(w);
	assert_int_equal(registry_count_senders(&w->supervisor->registry), 0);
}

/* --- Recovery -------------------------------------------------------------------------------- */

/* A receiver that died between the decision to abort and its note. */
static char *leave_an_aborted_receiver(struct world *w)
{
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	char *vdi_uuid CLEANUP_FREE = uuid_new();
	bool committed;
	struct migration_row row = {.uuid = uuid_new(),
		.role = ROLE_RECEIVER,
		.state = STATE_SEALED,
		.document = value_set(value_new_struct(), "disks", value_new_array())};

	check_ok(&w->fixture->fault,
		storage_prepare_disk(&w->fixture->storage, row.uuid, fixture_sr(w->fixture),
			vdi_uuid, 1 << 20, 0, &location, &path, &w->fixture->fault));
	check_ok(&w->fixture->fault,
		migration_insert(w->fixture->storage.agent, &row, &w->fixture->fault));
	check_ok(&w->fixture->fault, commit_decide(w->fixture->storage.pool, row.uuid, false, NULL,
					     &committed, NULL, &w->fixture->fault));
	char *uuid = xstrdup(row.uuid);
	migration_row_clear(&row);
	return uuid;
}

static void an_sr_that_is_away_does_not_keep_the_daemon_from_starting(void **state)
{
	struct world *w = *state;
	char *uuid CLEANUP_FREE = leave_an_aborted_receiver(w);
	char *away CLEANUP_FREE = xasprintf("%s.away", w->fixture->directory);

	assert_int_equal(rename(w->fixture->directory, away), 0);
	check_ok(&w->fixture->fault, supervisor_start(w->supervisor, &w->fixture->fault));
	struct migration *m CLEANUP_MIGRATION = registry_find(&w->supervisor->registry, uuid);
	assert_non_null(m);
	assert_int_equal(migration_state(m), STATE_ABORTING);
	assert_int_equal(rename(away, w->fixture->directory), 0);
	for (int i = 0; i < 100 && count_rows(w); i++)
		cancel_sleep(NULL, 50 * USEC_PER_MSEC);
	assert_int_equal(migration_state(m), STATE_FAILED);
	assert_int_equal(fixture_count_files(w->fixture), 0);
	assert_int_equal(fixture_count_journal(w->fixture), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(data_tls_must_be_the_same_at_both_sides),
		CASE(a_disk_that_came_after_the_plan_stops_the_migration),
		CASE(a_sender_that_cannot_start_leaves_nothing),
		CASE(an_sr_that_is_away_does_not_keep_the_daemon_from_starting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
