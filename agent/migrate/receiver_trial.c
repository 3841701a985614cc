/* SPDX-License-Identifier: Apache-2.0 */
/* The import of the commit, tried and undone: whether it can be done, and what guest it makes. */
#include "agent/migrate/metadata.h"
#include "agent/migrate/receiver_internal.h"
#include "agent/migrate/rehome.h"
#include "agent/vm/guest_record.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

struct trial {
	const struct storage *storage;
	const struct value *manifest;
	const struct value *disks;
	bool with_files;
	struct guest_spec *spec; /* NULL: the import only */
	char *vm;                /* as it was called for that moment */
	bool is_imported;
	bool is_possible;
};

static int read_guest(struct trial *trial, struct fault *fault)
{
	if (!trial->spec)
		return 0;
	return trial->with_files
		       ? guest_record_read(trial->storage, trial->vm, trial->spec, fault)
		       : guest_record_check(trial->storage, trial->vm, trial->spec, fault);
}

static int rehome(struct trial *trial, struct fault *fault)
{
	trial->vm = xstrdup(value_find_string(trial->manifest, "vm_ref", ""));
	return rehome_commit(trial->storage, trial->manifest, trial->disks, false, fault);
}

/* Undone, whatever comes out. */
static int try_all(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct trial *trial = arg;

	int r = rehome_is_wanted(trial->manifest)
			? rehome(trial, fault)
			: metadata_import(pool, trial->manifest, trial->disks,
				  value_find_bool(trial->manifest, "copy", false), &trial->vm,
				  fault);
	trial->is_imported = r == 0;
	if (r == 0)
		r = read_guest(trial, fault);
	trial->is_possible = r == 0;
	return r < 0 ? r : -ECANCELED;
}

/* The VM is called by its uuid: the ref that it had for a moment means nothing to anybody. */
static void name_vm(const struct trial *trial, struct fault *fault)
{
	const char *uuid = value_find_string(value_find(trial->manifest, "vm"), "uuid", "");

	for (size_t i = 0; fault && i < fault->n_params; i++) {
		if (strcmp(fault->params[i], trial->vm) != 0)
			continue;
		free(fault->params[i]);
		fault->params[i] = xstrdup(uuid);
	}
}

static int run_trial(
	const struct supervisor_params *params, struct trial *trial, struct fault *fault)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;

	trial->storage = params->storage;
	int r = pool_db_transaction(params->storage->pool, try_all, trial, &cause);
	if (trial->is_imported && !rehome_is_wanted(trial->manifest))
		name_vm(trial, &cause);
	free(trial->vm);
	if (trial->is_possible)
		return 0;
	if (trial->is_imported) {
		fault_move(fault, &cause);
		return r;
	}
	char *why CLEANUP_FREE = fault_describe(&cause);
	char *text CLEANUP_FREE =
		xasprintf("preflight: the destination cannot import the VM: %s", why);
	return fault_set(fault, r, "IMPORT_ERROR", text, NULL);
}

int receiver_try_import(const struct supervisor_params *params, const struct value *manifest,
	const struct value *disks, struct fault *fault)
{
	struct trial trial = {.manifest = manifest, .disks = disks};

	return run_trial(params, &trial, fault);
}

int receiver_try_guest(const struct supervisor_params *params, const struct value *manifest,
	const struct value *disks, bool with_files, struct guest_spec *ret_spec,
	struct fault *fault)
{
	struct trial trial = {
		.manifest = manifest, .disks = disks, .with_files = with_files, .spec = ret_spec};

	int r = run_trial(params, &trial, fault);
	const char *machine = value_find_string(manifest, "machine", NULL);
	if (r == 0 && machine)
		ret_spec->machine = xstrdup(machine);
	return r;
}
