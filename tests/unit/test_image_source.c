/* SPDX-License-Identifier: Apache-2.0 */
/* How a disk of a halted VM is read; that of a running one: tests/func/test_image_export.c. */
#include "tests/lib/storage_fixture.h"

#include "agent/copy/endpoint.h"
#include "agent/migrate/image_source.h"
#include "base/uuid.h"
#include "target/image.h"

#include <errno.h>
#include <string.h>

#define QEMU_IMG   "/usr/bin/qemu-img"
#define QEMU_NBD   "/usr/bin/qemu-nbd"
#define DISK_BYTES (UINT64_C(1) << 20)

struct world {
	struct fixture *fixture;
	struct supervisor_params params;
	struct migration *m;
	struct value *disk; /* of the plan */
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct migration_row row = {.uuid = uuid_new(),
		.role = ROLE_SENDER,
		.state = STATE_COPYING,
		.document = value_new_struct()};

	*state = w;
	if (fixture_setup((void **)&w->fixture) < 0)
		return -1;
	w->params.storage = &w->fixture->storage;
	w->params.run_dir = w->fixture->folder;
	w->params.qemu_nbd = QEMU_NBD;
	check_ok(&w->fixture->fault,
		migration_insert(w->fixture->storage.agent, &row, &w->fixture->fault));
	w->m = migration_new(&w->params, &row);
	migration_row_clear(&row);
	w->disk = value_new_struct();
	value_set_int(w->disk, "size", DISK_BYTES);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	struct fixture *fixture = w->fixture;

	migration_unref(w->m);
	value_free(w->disk);
	free(w);
	return fixture_teardown((void **)&fixture);
}

static void make_disk(struct world *w, const char *name, enum image_format format)
{
	char *path CLEANUP_FREE = xasprintf("%s/%s", w->fixture->directory, name);

	check_ok(&w->fixture->fault,
		image_create(QEMU_IMG, path, format, DISK_BYTES, &w->fixture->fault));
	value_set_string(w->disk, "path", path);
}

static size_t count_rows(struct world *w)
{
	struct resource_row *rows = NULL;
	size_t n = 0;

	check_ok(&w->fixture->fault, resource_list(w->fixture->storage.agent, w->m->uuid, NULL,
					     &rows, &n, &w->fixture->fault));
	for (size_t i = 0; i < n; i++)
		resource_row_clear(&rows[i]);
	free(rows);
	return n;
}

static void check_refused(struct world *w, int error, const char *text)
{
	struct image_source *source = NULL;

	assert_int_equal(
		image_source_open(w->m, w->disk, NULL, &source, &w->fixture->fault), error);
	assert_non_null(strstr(w->fixture->fault.params[0], text));
	assert_int_equal(count_rows(w), 0);
}

static void a_raw_disk_is_the_file_it_is(void **state)
{
	struct world *w = *state;
	struct image_source *source CLEANUP_IMAGE_SOURCE = NULL;

	make_disk(w, "disk.raw", IMAGE_RAW);
	check_ok(&w->fixture->fault,
		image_source_open(w->m, w->disk, NULL, &source, &w->fixture->fault));
	const struct endpoint_spec *spec = image_source_spec(source);
	assert_int_equal(spec->kind, ENDPOINT_FILE);
	assert_string_equal(spec->path, value_find_string(w->disk, "path", ""));
	assert_int_equal(spec->size_bytes, DISK_BYTES);
	assert_false(spec->writable || spec->direct);
	assert_int_equal(count_rows(w), 0);
}

static void a_qcow2_disk_is_served_until_it_is_closed(void **state)
{
	struct world *w = *state;
	struct image_source *source = NULL;
	struct endpoint *endpoint = NULL;
	struct extent found;

	make_disk(w, "disk.qcow2", IMAGE_QCOW2);
	check_ok(&w->fixture->fault,
		image_source_open(w->m, w->disk, NULL, &source, &w->fixture->fault));
	assert_int_equal(count_rows(w), 1);
	check_ok(&w->fixture->fault,
		endpoint_open(image_source_spec(source), NULL, &endpoint, &w->fixture->fault));
	check_ok(&w->fixture->fault, endpoint_next_data(endpoint, 0, &found, &w->fixture->fault));
	assert_int_equal(found.length, 0);
	endpoint_close(endpoint);
	char *socket CLEANUP_FREE = xstrdup(image_source_spec(source)->socket_path);
	image_source_close(source);
	assert_int_equal(count_rows(w), 0);
	*strrchr(socket, '/') = '\0';
	assert_int_equal(access(socket, F_OK), -1);
}

static void what_cannot_be_read_leaves_nothing(void **state)
{
	struct world *w = *state;

	make_disk(w, "disk.qcow2", IMAGE_QCOW2);
	value_set_int(w->disk, "size", DISK_BYTES + 512);
	check_refused(w, -EIO, "not the 1049088 that were planned");
	value_set_int(w->disk, "size", DISK_BYTES);
	w->params.qemu_nbd = NULL;
	check_refused(w, -EOPNOTSUPP, "qemu-nbd");
	w->params.qemu_nbd = "/nonexistent/nbd";
	check_refused(w, -ENOENT, "/nonexistent/nbd");
	assert_int_equal(truncate(value_find_string(w->disk, "path", ""), 100), 0);
	check_refused(w, -EINVAL, "cut short");
}

static void what_a_dead_agent_left_is_removed(void **state)
{
	struct world *w = *state;
	char *folder CLEANUP_FREE = xasprintf("%s/i0123", w->fixture->folder);
	char *pid CLEANUP_FREE = xasprintf("%s/pid", folder);
	char *gone CLEANUP_FREE = xasprintf("%s/i4567", w->fixture->folder);
	struct value *detail CLEANUP_VALUE = value_new_struct();
	struct agent_db *agent = w->fixture->storage.agent;
	struct fault *fault = &w->fixture->fault;

	value_set_string(detail, "vm", "OpaqueRef:none");
	check_ok(fault,
		resource_record(agent, w->m->uuid, "image-server", folder, NULL, NULL, fault));
	check_ok(
		fault, resource_record(agent, w->m->uuid, "image-server", gone, NULL, NULL, fault));
	check_ok(fault,
		resource_record(agent, w->m->uuid, "image-export", "m.d0", detail, NULL, fault));
	check_ok(fault, resource_record(agent, w->m->uuid, "tgtd", "other", NULL, NULL, fault));
	assert_int_equal(mkdir(folder, 0700), 0);
	FILE *file CLEANUP_FCLOSE = fopen(pid, "w");
	check_ok(fault, image_source_recover(&w->params, fault));
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(count_rows(w), 1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_raw_disk_is_the_file_it_is),
		T(a_qcow2_disk_is_served_until_it_is_closed),
		T(what_cannot_be_read_leaves_nothing),
		T(what_a_dead_agent_left_is_removed),
	};

	if (access(QEMU_IMG, X_OK) < 0 || access(QEMU_NBD, X_OK) < 0) {
		print_message("qemu-img and qemu-nbd are not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
