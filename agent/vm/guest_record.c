/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/guest_record.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/uuid.h"
#include "target/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Below that no firmware starts. */
#define MIN_MEMORY_BYTES (INT64_C(4) << 20)
#define DEFAULT_ORDER    "cd"

struct reading {
	const struct storage *storage;
	const char *vm;
	const struct value *record;
	struct guest_spec *spec;
	bool without_files;
};

/* Sorted by place: the same VM has its devices in the same order wherever it runs. */
struct device {
	uint64_t place;
	struct value *record;
};

static int compare_places(const void *a, const void *b)
{
	uint64_t left = ((const struct device *)a)->place;
	uint64_t right = ((const struct device *)b)->place;

	return left < right ? -1 : left > right;
}

static void devices_free(struct device *devices, size_t n)
{
	for (size_t i = 0; i < n; i++)
		value_free(devices[i].record);
	free(devices);
}

static int load_devices(struct reading *reading, const char *class, const char *place_field,
	struct device **ret_devices, size_t *ret_n, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	struct pool_db *pool = reading->storage->pool;
	int r = object_find(pool, class, "VM", reading->vm, &refs, fault);

	if (r < 0)
		return r;
	struct device *devices = xcalloc(refs->array.n_items + 1, sizeof(*devices));
	size_t n = 0;
	for (; r == 0 && n < refs->array.n_items; n++) {
		struct device *device = &devices[n];
		r = object_get_record(
			pool, class, refs->array.items[n]->string, &device->record, fault);
		if (r == 0)
			parse_uint64(value_find_string(device->record, place_field, "0"),
				&device->place);
	}
	if (r < 0) {
		devices_free(devices, n);
		return r;
	}
	qsort(devices, n, sizeof(*devices), compare_places);
	*ret_devices = devices;
	*ret_n = n;
	return 0;
}

/* --- The VM itself ------------------------------------------------------------------------------
 */

static int read_file_field(
	struct reading *reading, const char *field, char **ret_path, struct fault *fault)
{
	const char *path = value_find_string(reading->record, field, "");
	const char *why = NULL;

	if (!*path)
		return 0;
	if (*path != '/')
		why = "it must be an absolute path on the host";
	else if (access(path, R_OK) < 0)
		why = strerror(errno);
	if (why) {
		char *text CLEANUP_FREE = xasprintf("%s: %s", path, why);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", field, text, NULL);
	}
	*ret_path = xstrdup(path);
	return 0;
}

static int read_machine(struct reading *reading, struct fault *fault)
{
	const struct value *record = reading->record;
	struct guest_spec *spec = reading->spec;
	int64_t memory = value_find_int(record, "memory_static_max", 0);

	if (memory < MIN_MEMORY_BYTES)
		return fault_set(fault, -EINVAL, "VM_MEMORY_SIZE_TOO_LOW", reading->vm, NULL);
	spec->memory_bytes = (uint64_t)memory;
	spec->vcpus = (unsigned)value_find_int(record, "VCPUs_max", 1);
	spec->uuid = xstrdup(value_find_string(record, "uuid", ""));
	spec->name = xstrdup(value_find_string(record, "name_label", ""));
	spec->reset_ends =
		strcmp(value_find_string(record, "actions_after_reboot", ""), "destroy") == 0;
	int r = read_file_field(reading, "PV_kernel", &spec->kernel, fault);
	if (r == 0)
		r = read_file_field(reading, "PV_ramdisk", &spec->ramdisk, fault);
	if (r == 0)
		spec->args = xstrdup(value_find_string(record, "PV_args", ""));
	if (r == 0 && spec->ramdisk && !spec->kernel)
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "PV_ramdisk",
			"it needs a PV_kernel", NULL);
	return r;
}

/* --- Disks, drives, network cards ---------------------------------------------------------------
 */

static bool takes_o_direct(const char *path)
{
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	return fd >= 0;
}

static int add_drive(struct reading *reading, const char *vdi, struct fault *fault)
{
	struct guest_spec *spec = reading->spec;
	char *path = NULL;

	if (!ref_is_null(vdi)) {
		int r = vdi_path(reading->storage, vdi, &path, fault);
		if (r < 0)
			return r;
	}
	spec->drives = xrealloc(spec->drives, spec->n_drives + 1, sizeof(*spec->drives));
	spec->drives[spec->n_drives++] = (struct guest_drive){
		.path = path,
		.format = path ? image_format_name(image_format_of(path)) : NULL,
	};
	return 0;
}

static int find_file(struct reading *reading, const char *vdi, char **ret_path, struct fault *fault)
{
	if (!reading->without_files)
		return vdi_path(reading->storage, vdi, ret_path, fault);
	*ret_path = xstrdup("");
	return 0;
}

static int add_disk(
	struct reading *reading, const struct value *vbd, const char *vdi, struct fault *fault)
{
	struct guest_spec *spec = reading->spec;
	bool read_only = strcmp(value_find_string(vbd, "mode", "RW"), "RO") == 0;
	bool is_vdi_read_only = false;
	char *path = NULL;
	int r = object_get_bool(
		reading->storage->pool, "VDI", vdi, "read_only", &is_vdi_read_only, fault);

	if (r == 0)
		r = find_file(reading, vdi, &path, fault);
	if (r < 0)
		return r;
	spec->disks = xrealloc(spec->disks, spec->n_disks + 1, sizeof(*spec->disks));
	spec->disks[spec->n_disks++] = (struct guest_disk){
		.path = path,
		.format = image_format_name(image_format_of(path)),
		.vdi = xstrdup(vdi),
		.read_only = read_only || is_vdi_read_only,
		.direct = takes_o_direct(path),
	};
	return 0;
}

static int add_block_device(struct reading *reading, const struct value *vbd, struct fault *fault)
{
	const char *type = value_find_string(vbd, "type", "Disk");
	const char *vdi = value_find_string(vbd, "VDI", REF_NULL);

	if (strcmp(type, "CD") == 0)
		return add_drive(reading, vdi, fault);
	if (strcmp(type, "Disk") == 0)
		return add_disk(reading, vbd, vdi, fault);
	return fault_set(fault, -EINVAL, "OPERATION_NOT_ALLOWED",
		"The VM has a floppy drive, which no guest of this host can have", NULL);
}

static int read_block_devices(struct reading *reading, struct fault *fault)
{
	struct device *devices = NULL;
	size_t n = 0;
	int r = load_devices(reading, "VBD", "userdevice", &devices, &n, fault);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_block_device(reading, devices[i].record, fault);
	devices_free(devices, n);
	return r;
}

static int add_nic(struct reading *reading, const struct value *vif, struct fault *fault)
{
	struct guest_spec *spec = reading->spec;
	const char *network = value_find_string(vif, "network", REF_NULL);
	char *bridge CLEANUP_FREE = NULL;
	int r = object_get_string(
		reading->storage->pool, "network", network, "bridge", &bridge, fault);

	if (r < 0)
		return r;
	/* Only root could plug a card into a bridge. */
	if (*bridge) {
		log_warn("guest.bridge", "vm=%s bridge=%s: guests join no bridge of the host",
			spec->uuid, bridge);
		return fault_set(fault, -ENODEV, "VM_REQUIRES_NETWORK", reading->vm, network, NULL);
	}
	spec->nics = xrealloc(spec->nics, spec->n_nics + 1, sizeof(*spec->nics));
	spec->nics[spec->n_nics++] =
		(struct guest_nic){.mac = xstrdup(value_find_string(vif, "MAC", ""))};
	return 0;
}

static int read_nics(struct reading *reading, struct fault *fault)
{
	struct device *devices = NULL;
	size_t n = 0;
	int r = load_devices(reading, "VIF", "device", &devices, &n, fault);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_nic(reading, devices[i].record, fault);
	devices_free(devices, n);
	return r;
}

/* XenAPI's HVM_boot_params["order"]: c is disks, d CD drives, n the network. */
static void set_boot_order(struct reading *reading)
{
	struct guest_spec *spec = reading->spec;
	const char *order = value_find_string(
		value_find(reading->record, "HVM_boot_params"), "order", DEFAULT_ORDER);
	unsigned next = 1;

	if (spec->kernel)
		return;
	for (const char *c = order; *c; c++) {
		/* A letter counts once, where it stands first. */
		if (memchr(order, *c, (size_t)(c - order)))
			continue;
		for (size_t i = 0; *c == 'c' && i < spec->n_disks; i++)
			spec->disks[i].boot_index = next++;
		for (size_t i = 0; *c == 'd' && i < spec->n_drives; i++)
			spec->drives[i].boot_index = next++;
		for (size_t i = 0; *c == 'n' && i < spec->n_nics; i++)
			spec->nics[i].boot_index = next++;
	}
}

static int read_all(struct reading *reading, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = NULL;
	int r = object_get_record(reading->storage->pool, "VM", reading->vm, &record, fault);

	if (r < 0)
		return r;
	reading->record = record;
	r = read_machine(reading, fault);
	if (r == 0)
		r = read_block_devices(reading, fault);
	if (r == 0)
		r = read_nics(reading, fault);
	if (r == 0)
		set_boot_order(reading);
	return r < 0 ? r : guest_spec_check(reading->spec, fault);
}

int guest_record_read(const struct storage *storage, const char *vm, struct guest_spec *ret_spec,
	struct fault *fault)
{
	struct reading reading = {.storage = storage, .vm = vm, .spec = ret_spec};

	return read_all(&reading, fault);
}

int guest_record_check(const struct storage *storage, const char *vm, struct guest_spec *ret_spec,
	struct fault *fault)
{
	struct reading reading = {
		.storage = storage, .vm = vm, .spec = ret_spec, .without_files = true};

	return read_all(&reading, fault);
}
