/* SPDX-License-Identifier: Apache-2.0 */
/* Files in the repositories of this host, and the disks that they are. */
#include "agent/migrate/doctor_internal.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define IMAGE_KIND "vdi-file" /* of resources; agent/storage */

static struct value *list_folder(const char *folder)
{
	struct value *names = value_new_array();
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	if (!dir)
		return value_free(names);
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			strcmp(entry->d_name, "lost+found") != 0)
			value_append_string(names, entry->d_name);
	closedir(dir);
	return names;
}

static bool is_journalled(const struct resource_row *rows, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, path) == 0)
			return true;
	return false;
}

/* Of the SR's disks: struct of location -> uuid. */
static struct value *list_disks(struct doctor *doctor, const char *sr)
{
	struct value *disks = value_new_struct();
	struct value *refs CLEANUP_VALUE = NULL;
	struct pool_db *pool = doctor->params->storage->pool;

	if (object_find(pool, "VDI", "SR", sr, &refs, NULL) < 0)
		return value_free(disks);
	for (size_t i = 0; i < refs->array.n_items; i++) {
		struct value *record CLEANUP_VALUE = NULL;
		if (object_get_record(pool, "VDI", value_string(refs->array.items[i], ""), &record,
			    NULL) == 0)
			value_set_string(disks, value_find_string(record, "location", ""),
				value_find_string(record, "uuid", ""));
	}
	return disks;
}

struct repository {
	const char *folder;
	const struct value *holds; /* what hosts are working on there */
	const struct value *names; /* of its files */
	const struct value *disks;
	const struct resource_row *rows;
	size_t n_rows;
};

static void look_at_files(struct doctor *doctor, const struct repository *repository)
{
	for (size_t i = 0; i < repository->names->array.n_items; i++) {
		const char *name = repository->names->array.items[i]->string;
		char *path CLEANUP_FREE = xasprintf("%s/%s", repository->folder, name);
		if (value_find(repository->disks, name) ||
			strncmp(name, STORAGE_OWN_PREFIX, strlen(STORAGE_OWN_PREFIX)) == 0 ||
			value_find(repository->holds, name) ||
			is_journalled(repository->rows, repository->n_rows, path))
			continue;
		doctor_add(doctor, "file", name, repository->folder, false,
			"no disk of the repository is this file, and nobody works on it; `ferry sr "
			"scan` takes in images, anything else does not belong there");
	}
}

static void look_at_disks(struct doctor *doctor, const struct repository *repository)
{
	for (size_t i = 0; i < repository->disks->record.n_members; i++) {
		const struct value_member *disk = &repository->disks->record.members[i];
		char *path CLEANUP_FREE = xasprintf("%s/%s", repository->folder, disk->name);
		if (value_contains_string(repository->names, disk->name) ||
			is_journalled(repository->rows, repository->n_rows, path))
			continue;
		doctor_add(doctor, "disk", value_string(disk->value, ""), path, false,
			"the VDI is in the database, and its image is not there: bring it back, or "
			"destroy the VDI");
	}
}

/* A hold keeps a file from being taken in; that of a host which is gone does so for ever. */
static void look_at_holds(struct doctor *doctor, const struct repository *repository)
{
	struct pool_db *pool = doctor->params->storage->pool;

	for (size_t i = 0; i < repository->holds->record.n_members; i++) {
		const struct value_member *hold = &repository->holds->record.members[i];
		const char *host = value_find_string(hold->value, "host", "");
		struct fault why CLEANUP_FAULT = FAULT_INIT;
		if (object_check(pool, "host", host, &why) < 0 && fault_is(&why, "HANDLE_INVALID"))
			doctor_add(doctor, "hold", hold->name, repository->folder, false,
				"a file " STORAGE_OWN_PREFIX
				"hold.* says that host %s works on it, which is not of this pool "
				"(any more): look at the image, and remove the file that says so",
				host);
	}
}

/* First the files, then who made them: what was made in between is not among the files. */
static void look_at_repository(struct doctor *doctor, const char *sr, const char *folder)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	char *location CLEANUP_FREE = NULL;
	struct value *names CLEANUP_VALUE = list_folder(folder);
	struct resource_row *rows = NULL;
	size_t n = 0;

	if (!names) {
		doctor_add(doctor, "repository", sr, folder, false, "it cannot be looked into: %s",
			strerror(errno));
		return;
	}
	/* Without its mark it is another directory than that of the SR. */
	if (sr_location(doctor->params->storage, sr, &location, &why) < 0) {
		doctor_add(doctor, "repository", sr, folder, false, "%s",
			why.n_params > 1 ? why.params[1] : why.code);
		return;
	}
	if (resource_list(doctor->params->storage->agent, NULL, IMAGE_KIND, &rows, &n, NULL) < 0)
		return;
	struct value *holds CLEANUP_VALUE = NULL;
	storage_list_holds(folder, &holds, NULL);
	struct value *disks CLEANUP_VALUE = list_disks(doctor, sr);
	const struct repository repository = {folder, holds, names, disks, rows, n};
	if (disks && holds) {
		look_at_files(doctor, &repository);
		look_at_disks(doctor, &repository);
		look_at_holds(doctor, &repository);
	}
	for (size_t i = 0; i < n; i++)
		resource_row_clear(&rows[i]);
	free(rows);
}

/* Images that a migration has made, and that should be there. */
static void look_at_arriving(struct doctor *doctor, struct migration *m)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	enum migration_state state = migration_state(m);

	if (m->role != ROLE_RECEIVER || (state != STATE_RECEIVING && state != STATE_SEALED))
		return;
	for (size_t i = 0; disks && i < disks->array.n_items; i++) {
		const char *path = value_find_string(disks->array.items[i], "path", "");
		if (*path && access(path, F_OK) < 0 && migration_state(m) == state)
			doctor_add(doctor, "image", path, m->uuid, false,
				"the migration has made this image, and it is not there: it will "
				"fail");
	}
}

void doctor_look_at_storage(struct doctor *doctor)
{
	const struct storage *storage = doctor->params->storage;
	struct value *pbds CLEANUP_VALUE = NULL;
	size_t n;
	struct migration **all CLEANUP_FREE = registry_all(&doctor->supervisor->registry, &n);

	for (size_t i = 0; i < n; i++) {
		struct migration *m CLEANUP_MIGRATION = all[i];
		look_at_arriving(doctor, m);
	}
	if (object_find(storage->pool, "PBD", "host", storage->host_ref, &pbds, NULL) < 0)
		return;
	for (size_t i = 0; i < pbds->array.n_items; i++) {
		struct value *pbd CLEANUP_VALUE = NULL;
		if (object_get_record(storage->pool, "PBD", value_string(pbds->array.items[i], ""),
			    &pbd, NULL) < 0 ||
			!value_find_bool(pbd, "currently_attached", false))
			continue;
		const char *folder =
			value_find_string(value_find(pbd, "device_config"), "location", NULL);
		if (folder)
			look_at_repository(doctor, value_find_string(pbd, "SR", ""), folder);
	}
}
