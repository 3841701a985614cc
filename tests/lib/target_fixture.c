/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/target_fixture.h"

#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "target/disk.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define NOBODY 65534

int fixture_drop_privileges(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		return -1;
	/* A change of user makes a process opaque to its own debugging and leak checks. */
	return prctl(PR_SET_DUMPABLE, 1);
}

int fixture_setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	strcpy(fixture->dir, "/tmp/ferry-tgt-XXXXXX");
	if (!mkdtemp(fixture->dir))
		return -1;
	fixture->run_dir = xasprintf("%s/run", fixture->dir);
	fixture->images = xasprintf("%s/images", fixture->dir);
	fixture->image = xasprintf("%s/disk.img", fixture->images);
	*state = fixture;
	if (mkdir(fixture->images, 0700) < 0)
		return -1;
	return disk_create(fixture->image, SIZE, &fault);
}

static void lost(void *arg, const char *reason)
{
	struct fixture *fixture = arg;

	snprintf(fixture->reason, sizeof(fixture->reason), "%s", reason);
	__atomic_fetch_add(&fixture->n_lost, 1, __ATOMIC_SEQ_CST);
}

int fixture_start(struct fixture *fixture, const char *address, struct fault *fault)
{
	const char *dirs[] = {fixture->images, NULL};

	return tgt_start(
		&(struct tgt_params){
			.program = TGTD,
			.run_dir = fixture->run_dir,
			.address = address,
			.image_dirs = dirs,
			.n_threads = 2,
			.lost = lost,
			.arg = fixture,
		},
		&fixture->tgt, fault);
}

int fixture_setup_tgt(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (fixture_setup(state) < 0)
		return -1;
	int r = fixture_start(*state, "127.0.0.1", &fault);
	if (r < 0)
		print_error("tgtd: %s\n", fault.params[0]);
	return r;
}

static void remove_all(const char *dir)
{
	DIR *handle = opendir(dir);

	for (struct dirent *entry; handle && (entry = readdir(handle));) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", dir, entry->d_name);
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlink(path);
	}
	if (handle)
		closedir(handle);
	rmdir(dir);
}

int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	tgt_stop(fixture->tgt);
	remove_all(fixture->images);
	/* Fails when tgt_stop left something in run_dir. */
	int r = rmdir(fixture->dir);
	free(fixture->run_dir);
	free(fixture->images);
	free(fixture->image);
	free(fixture);
	return r;
}

struct export_params fixture_export(const struct fixture *fixture)
{
	return (struct export_params){
		.iqn = IQN,
		.path = fixture->image,
		.initiator = INITIATOR,
		.user = USER,
		.secret = SECRET,
		.serial = SERIAL,
		.size_bytes = SIZE,
	};
}

bool fixture_await_lost(struct fixture *fixture, unsigned seconds)
{
	uint64_t deadline = clock_deadline(seconds * USEC_PER_SEC);

	while (__atomic_load_n(&fixture->n_lost, __ATOMIC_SEQ_CST) == 0) {
		if (clock_now_usec() >= deadline)
			return false;
		usleep(10000);
	}
	return true;
}

struct login fixture_login(const char *portal)
{
	return (struct login){portal, IQN, INITIATOR, USER, SECRET};
}

char *fixture_portal(const struct fixture *fixture, const char *address)
{
	return xasprintf("%s:%u", address, tgt_port(fixture->tgt));
}

struct iscsi_context *login_open(const struct login *login, char *error, size_t size)
{
	struct iscsi_context *iscsi = iscsi_create_context(login->initiator);

	assert_non_null(iscsi);
	iscsi_set_noautoreconnect(iscsi, 1);
	iscsi_set_timeout(iscsi, 5);
	iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_targetname(iscsi, login->iqn);
	if (login->user)
		iscsi_set_initiator_username_pwd(iscsi, login->user, login->secret);
	if (iscsi_full_connect_sync(iscsi, login->portal, EXPORT_LUN) == 0)
		return iscsi;
	snprintf(error, size, "%s", iscsi_get_error(iscsi));
	iscsi_destroy_context(iscsi);
	return NULL;
}

bool login_is_refused(const struct login *login, const char *word)
{
	char error[512] = "";
	struct iscsi_context *iscsi = login_open(login, error, sizeof(error));

	if (iscsi) {
		iscsi_destroy_context(iscsi);
		return false;
	}
	if (strstr(error, word))
		return true;
	print_error("refused, but with: %s\n", error);
	return false;
}
