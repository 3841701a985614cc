/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving side of a guest that runs: real QEMU at both ends of a real tunnel, no target. */
#ifndef FERRY_TESTS_LIB_LIVE_FIXTURE_H
#define FERRY_TESTS_LIB_LIVE_FIXTURE_H
#include "tests/lib/guest_fixture.h"

#include "agent/guest/memory.h"
#include "agent/migrate/receiver_internal.h"
#include "base/uuid.h"
#include "xmlrpc/tls.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define DISK_BYTES (1 << 20)
#define WAIT_USEC  (20 * USEC_PER_SEC)

struct world {
	struct fixture *fixture;
	struct supervisor_params params;
	char *certificate;
	char *key;
	char *fingerprint;
	char *near_path;
	char *source; /* VM */
	pid_t source_pid;
	char *uuid; /* of the VM that comes */
	struct migration *m;
	pid_t pid; /* of the QEMU that takes the memory */
};

static inline void start_tunnel(struct world *w)
{
	struct fault *fault = &w->fixture->fault;

	w->certificate = xasprintf("%s/tls.crt", w->fixture->folder);
	w->key = xasprintf("%s/tls.key", w->fixture->folder);
	w->near_path = xasprintf("%s/near", w->fixture->folder);
	check_ok(fault, tls_ensure_certificate(w->certificate, w->key, "host", "127.0.0.1", fault));
	check_ok(fault, tls_fingerprint(w->certificate, &w->fingerprint, fault));
	const struct tunnel_params params = {
		.address = "127.0.0.1", .certificate_file = w->certificate, .key_file = w->key};
	check_ok(fault, tunnel_start(&params, &w->params.tunnel, fault));
}

static inline int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	*state = w;
	if (fixture_setup((void **)&w->fixture) < 0)
		return -1;
	log_set_level(LOG_LEVEL_NONE);
	start_tunnel(w);
	w->params.storage = &w->fixture->storage;
	w->params.guests = guest_fixture_open(w->fixture);
	w->params.run_dir = w->fixture->folder;
	w->params.data_address = "127.0.0.1";
	w->uuid = uuid_new();
	return 0;
}

static inline void end_process(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline int tear_down(void **state)
{
	struct world *w = *state;
	struct fixture *fixture = w->fixture;

	migration_unref(w->m);
	guests_free(w->params.guests);
	tunnel_stop(w->params.tunnel);
	end_process(w->pid);
	end_process(w->source_pid);
	free(w->source);
	free(w->uuid);
	free(w->near_path);
	free(w->fingerprint);
	free(w->key);
	free(w->certificate);
	free(w);
	return fixture_teardown((void **)&fixture);
}

/* --- What the sender says ----------------------------------------------------------------------
 */

static inline struct value *new_vm(struct world *w)
{
	struct value *vm = guest_fixture_vm();

	value_set_string(vm, "uuid", w->uuid);
	value_set_string(vm, "power_state", "Running");
	return vm;
}

static inline struct value *new_manifest(struct world *w)
{
	struct value *manifest = value_new_struct();
	struct value *vbd = value_new_struct();

	value_set_string(vbd, "userdevice", "0");
	value_set_string(vbd, "type", "Disk");
	value_set_string(vbd, "mode", "RW");
	value_set_int(vbd, "disk", 0);
	value_set_bool(manifest, "live", true);
	value_set(manifest, "vm", new_vm(w));
	value_set(manifest, "vbds", value_append(value_new_array(), vbd));
	value_set(manifest, "vifs", value_new_array());
	return manifest;
}

/* A receiver in that state, whose disk is there. */
static inline void open_receiver(struct world *w, enum migration_state state)
{
	struct fault *fault = &w->fixture->fault;
	char *vdi_uuid CLEANUP_FREE = uuid_new();
	char *location CLEANUP_FREE = NULL;
	char *path CLEANUP_FREE = NULL;
	struct value *disk = value_new_struct();
	struct migration_row row = {.uuid = uuid_new(),
		.role = ROLE_RECEIVER,
		.state = state,
		.document = value_new_struct()};
	struct stat st;

	check_ok(fault, storage_prepare_disk(&w->fixture->storage, row.uuid, fixture_sr(w->fixture),
				vdi_uuid, DISK_BYTES, 0, &location, &path, fault));
	assert_int_equal(stat(path, &st), 0);
	value_set_string(disk, "sr", fixture_sr(w->fixture));
	value_set_string(disk, "uuid", vdi_uuid);
	value_set_string(disk, "location", location);
	value_set_string(disk, "path", path);
	value_set_int(disk, "size", DISK_BYTES);
	value_set_int(disk, "device", (int64_t)st.st_dev);
	value_set_int(disk, "inode", (int64_t)st.st_ino);
	value_set_bool(row.document, "live", true);
	value_set(row.document, "manifest", new_manifest(w));
	value_set(row.document, "disks", value_append(value_new_array(), disk));
	check_ok(fault, migration_insert(w->fixture->storage.agent, &row, fault));
	free(fixture_object(
		w->fixture, "migration", value_set_string(value_new_struct(), "uuid", row.uuid)));
	w->m = migration_new(&w->params, &row);
	migration_row_clear(&row);
}

/* As when the agent is started again: what is stored, and the processes. */
static inline void restart(struct world *w)
{
	struct migration_row row = {0};
	char *uuid CLEANUP_FREE = xstrdup(w->m->uuid);

	guests_free(w->params.guests);
	w->m = migration_unref(w->m);
	fixture_close(w->fixture);
	fixture_open(w->fixture);
	w->params.guests = guest_fixture_open(w->fixture);
	assert_int_equal(
		migration_load(w->fixture->storage.agent, uuid, &row, &w->fixture->fault), 1);
	w->m = migration_new(&w->params, &row);
	migration_row_clear(&row);
	check_ok(&w->fixture->fault, receiver_recover_incoming(w->m, &w->fixture->fault));
}

static inline const char *incoming(struct world *w)
{
	static const char *const all[] = {"none", "waiting", "complete", "dead"};
	struct value *result CLEANUP_VALUE = value_new_struct();

	receiver_incoming_status(w->m, result);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (strcmp(value_find_string(result, "incoming", ""), all[i]) == 0)
			return all[i];
	return "";
}

static inline void check_incoming(struct world *w, const char *wanted)
{
	assert_string_equal(incoming(w), wanted);
}

static inline struct value *begin_incoming(struct world *w)
{
	struct value *answer = NULL;

	check_ok(&w->fixture->fault, receiver_incoming(w->m, &answer, &w->fixture->fault));
	struct resident *resident CLEANUP_GUESTS_RESIDENT =
		guests_find_incoming(w->params.guests, w->m->uuid);
	assert_non_null(resident);
	w->pid = guest_pid(resident_guest(resident));
	check_incoming(w, "waiting");
	return answer;
}

/* --- The source --------------------------------------------------------------------------------
 */

static inline struct resident *start_source(struct world *w)
{
	char *vdi CLEANUP_FREE = fixture_new_vdi(w->fixture, DISK_BYTES);
	struct value *vbd = value_new_struct();

	w->source = fixture_object(w->fixture, "VM", guest_fixture_vm());
	value_set_string(vbd, "VM", w->source);
	value_set_string(vbd, "VDI", vdi);
	value_set_string(vbd, "userdevice", "0");
	value_set_string(vbd, "type", "Disk");
	value_set_string(vbd, "mode", "RW");
	free(fixture_object(w->fixture, "VBD", vbd));
	guest_fixture_do(w->fixture, w->params.guests, w->source, "start");
	struct resident *resident = guests_hold(w->params.guests, w->source);
	assert_non_null(resident);
	w->source_pid = guest_pid(resident_guest(resident));
	return resident;
}

static inline int try_link(
	struct world *w, const struct value *answer, struct tunnel_link **ret_link)
{
	const struct tunnel_link_params params = {.address = "127.0.0.1",
		.port = (uint16_t)value_find_int(answer, "port", 0),
		.fingerprint = w->fingerprint,
		.door = value_find_string(answer, "door", ""),
		.secret = value_find_string(answer, "secret", ""),
		.socket_path = w->near_path};

	fault_clear(&w->fixture->fault);
	return tunnel_link_open(&params, NULL, ret_link, &w->fixture->fault);
}

static inline int connect_near(struct world *w)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(name.sun_path, w->near_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	return fd;
}

static inline void await_memory(
	struct world *w, struct guest *guest, unsigned while_status, enum memory_status wanted)
{
	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(guest);
	struct memory_progress progress;

	check_ok(&w->fixture->fault,
		memory_await(guest, watch, while_status, -1, clock_deadline(WAIT_USEC), NULL,
			&progress, &w->fixture->fault));
	assert_int_equal(progress.status, wanted);
}

/* Up to the moment at which the source's QEMU is told to hand over. */
static inline void send_memory(struct world *w, struct guest *guest, const struct value *answer,
	struct tunnel_link **ret_link)
{
	char *uri CLEANUP_FREE = xasprintf("unix:%s", w->near_path);
	const struct memory_params params = {
		.uri = uri, .max_bytes_per_sec = 100 << 20, .downtime_limit_usec = 300000};

	check_ok(&w->fixture->fault, try_link(w, answer, ret_link));
	check_ok(&w->fixture->fault, memory_start(guest, &params, &w->fixture->fault));
	await_memory(w, guest, 1 << MEMORY_NONE | 1 << MEMORY_ACTIVE, MEMORY_PRE_SWITCHOVER);
}

static inline void seal(struct world *w)
{
	check_ok(&w->fixture->fault, receiver_seal(w->m, NULL, &w->fixture->fault));
}

/* The whole way up to the commit. */
static inline void move(struct world *w)
{
	struct resident *from CLEANUP_GUESTS_RESIDENT = start_source(w);
	struct value *answer CLEANUP_VALUE = begin_incoming(w);
	struct tunnel_link *link CLEANUP_TUNNEL_LINK = NULL;

	send_memory(w, resident_guest(from), answer, &link);
	seal(w);
	check_ok(&w->fixture->fault, memory_continue(resident_guest(from), &w->fixture->fault));
	await_memory(w, resident_guest(from), 1 << MEMORY_PRE_SWITCHOVER | 1 << MEMORY_DEVICE,
		MEMORY_COMPLETED);
}

/* --- What is checked ---------------------------------------------------------------------------
 */

static inline void check_is_dead(struct world *w)
{
	waitpid(w->pid, NULL, WNOHANG);
	assert_int_equal(kill(w->pid, 0), -1);
	assert_int_equal(guest_fixture_count_journal(w->fixture, w->m->uuid), 0);
	w->pid = 0;
}

/* 1 committed, 0 aborted, -1 undecided. */
static inline int decision(struct world *w)
{
	bool committed = false;

	int r = commit_find(
		w->fixture->storage.pool, w->m->uuid, &committed, NULL, NULL, &w->fixture->fault);
	return r <= 0 ? -1 : committed;
}

static inline void check_nothing_is_left(struct world *w, size_t n_vms)
{
	assert_int_equal(decision(w), 0);
	assert_int_equal(migration_state(w->m), STATE_FAILED);
	assert_int_equal(fixture_count(w->fixture, "VM"), n_vms);
	check_is_dead(w);
	assert_null(w->m->door);
	assert_int_equal(fixture_count_journal(w->fixture), 0);
}

/* What those see who look at it. */
static inline void check_shown(struct world *w, const char *state)
{
	char *ref CLEANUP_FREE = NULL;

	check_ok(&w->fixture->fault, object_get_by_uuid(w->fixture->storage.pool, "migration",
					     w->m->uuid, &ref, &w->fixture->fault));
	struct value *record CLEANUP_VALUE = fixture_record(w->fixture, "migration", ref);
	assert_string_equal(value_find_string(record, "state", ""), state);
}

static inline char *find_arrived(struct world *w)
{
	char *vm = NULL;

	check_ok(&w->fixture->fault, object_get_by_uuid(w->fixture->storage.pool, "VM", w->uuid,
					     &vm, &w->fixture->fault));
	return vm;
}

static inline void check_runs(struct world *w, bool wanted)
{
	char *vm CLEANUP_FREE = find_arrived(w);
	struct resident *resident CLEANUP_GUESTS_RESIDENT = guests_hold(w->params.guests, vm);
	bool is_running = false;

	assert_non_null(resident);
	check_ok(&w->fixture->fault,
		guest_is_running(resident_guest(resident), &is_running, &w->fixture->fault));
	assert_int_equal(is_running, wanted);
	guest_fixture_check_state(w->fixture, vm, "Running");
}

static inline void end_both(struct world *w)
{
	char *vm CLEANUP_FREE = find_arrived(w);

	guest_fixture_do(w->fixture, w->params.guests, vm, "hard_shutdown");
	w->pid = 0;
	guest_fixture_do(w->fixture, w->params.guests, w->source, "hard_shutdown");
	w->source_pid = 0;
}

#endif
