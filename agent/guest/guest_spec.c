/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest_spec.h"

#include "base/alloc.h"
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* Slots 0 to 3 are the machine's own and room for what it may gain. */
#define FIRST_DISK_SLOT 4
#define FIRST_NIC_SLOT  20
#define FUNCTIONS       8

void guest_spec_clear(struct guest_spec *spec)
{
	for (size_t i = 0; i < spec->n_disks; i++) {
		free(spec->disks[i].path);
		free(spec->disks[i].vdi);
	}
	for (size_t i = 0; i < spec->n_drives; i++)
		free(spec->drives[i].path);
	for (size_t i = 0; i < spec->n_nics; i++)
		free(spec->nics[i].mac);
	free(spec->disks);
	free(spec->drives);
	free(spec->nics);
	free(spec->uuid);
	free(spec->name);
	free(spec->run_dir);
	free(spec->machine);
	free(spec->kernel);
	free(spec->ramdisk);
	free(spec->args);
	*spec = (struct guest_spec)GUEST_SPEC_INIT;
}

char *guest_file(const char *run_dir, const char *name)
{
	return xasprintf("%s/%s", run_dir, name);
}

static int check_count(const char *what, size_t n, size_t max, struct fault *fault)
{
	if (n <= max)
		return 0;
	char *text CLEANUP_FREE =
		xasprintf("The VM has %zu %s, and a guest can have %zu", n, what, max);
	return fault_set(fault, -E2BIG, "OPERATION_NOT_ALLOWED", text, NULL);
}

bool guest_machine_is_name(const char *machine)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t length = strlen(machine);

	return length > 0 && length <= 64 && *machine != '-' && strspn(machine, letters) == length;
}

int guest_spec_check(const struct guest_spec *spec, struct fault *fault)
{
	int r = check_count("disks", spec->n_disks, GUEST_MAX_DISKS, fault);

	if (r == 0)
		r = check_count("CD drives", spec->n_drives, GUEST_MAX_DRIVES, fault);
	if (r == 0)
		r = check_count("network cards", spec->n_nics, GUEST_MAX_NICS, fault);
	if (r == 0 && spec->machine && !guest_machine_is_name(spec->machine))
		r = fault_text(fault, -EINVAL, "machine: not the name of a machine type");
	return r;
}

/* --- Arguments ----------------------------------------------------------------------------------
 */

struct arguments {
	char **list;
	size_t n;
};

static void add_owned(struct arguments *arguments, char *text)
{
	arguments->list = xrealloc(arguments->list, arguments->n + 2, sizeof(*arguments->list));
	arguments->list[arguments->n++] = text;
	arguments->list[arguments->n] = NULL;
}

static void add(struct arguments *arguments, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void add(struct arguments *arguments, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add_owned(arguments, xvasprintf(format, args));
	va_end(args);
}

/* As JSON: in QEMU's own form a comma in a path would end it. Takes the struct over. */
static void add_json(struct arguments *arguments, const char *option, struct value *properties)
{
	struct value *owned CLEANUP_VALUE = properties;
	struct buf text CLEANUP_BUF = BUF_INIT;

	json_encode(owned, &text);
	add(arguments, "%s", option);
	add_owned(arguments, buf_take_string(&text));
}

static struct value *object(const char *key, const char *type, const char *id)
{
	struct value *properties = value_new_struct();

	value_set_string(properties, key, type);
	value_set_string(properties, "id", id);
	return properties;
}

/* In QEMU's own option syntax a comma stands for itself when doubled. */
static char *escape_commas(const char *text)
{
	struct buf out CLEANUP_BUF = BUF_INIT;

	for (; *text; text++) {
		if (*text == ',')
			buf_append_char(&out, ',');
		buf_append_char(&out, *text);
	}
	return buf_take_string(&out);
}

/* QEMU 7.2 under TCG forgets writes while it migrates: where the dirty bits of 64 pages are taken
 * at once (cpu_physical_memory_sync_dirty_bitmap), the processors go on writing without marking
 * them, and the guest dies at the destination of kernel memory that is out of date. Only memory
 * whose size is no multiple of 64 pages is looked through page by page, which is right; QEMU rounds
 * up to 8 KiB. KVM marks its pages by itself. */
static uint64_t memory_kib(const struct guest_spec *spec, const char *accelerator)
{
	uint64_t kib = spec->memory_bytes / 1024;

	return strcmp(accelerator, "tcg") == 0 && kib % 256 == 0 ? kib + 8 : kib;
}

static void add_machine(
	struct arguments *arguments, const struct guest_spec *spec, const char *accelerator)
{
	char *name CLEANUP_FREE = escape_commas(spec->name);

	add(arguments, "-name");
	add(arguments, "guest=%s", name);
	add(arguments, "-uuid");
	add(arguments, "%s", spec->uuid);
	add(arguments, "-machine");
	add(arguments, "%s,accel=%s,usb=off", spec->machine ? spec->machine : "pc", accelerator);
	add(arguments, "-m");
	add(arguments, "%" PRIu64 "K", memory_kib(spec, accelerator));
	add(arguments, "-smp");
	add(arguments, "%u", spec->vcpus);
	add(arguments, "-object");
	add(arguments, "iothread,id=io0");
	/* No firmware menu, and nobody to read a splash screen. */
	add(arguments, "-boot");
	add(arguments, "menu=off,strict=off");
	if (spec->reset_ends)
		add(arguments, "-no-reboot");
	if (spec->paused || spec->incoming)
		add(arguments, "-S");
	if (spec->incoming) {
		add(arguments, "-incoming");
		add(arguments, "defer");
	}
}

static void add_kernel(struct arguments *arguments, const struct guest_spec *spec)
{
	if (!spec->kernel)
		return;
	add(arguments, "-kernel");
	add(arguments, "%s", spec->kernel);
	if (spec->ramdisk) {
		add(arguments, "-initrd");
		add(arguments, "%s", spec->ramdisk);
	}
	add(arguments, "-append");
	add(arguments, "%s", spec->args ? spec->args : "");
}

static void add_monitor(struct arguments *arguments, const char *run_dir, const char *name)
{
	char *path CLEANUP_FREE = guest_file(run_dir, name);
	char *escaped CLEANUP_FREE = escape_commas(path);

	add(arguments, "-qmp");
	add(arguments, "unix:%s,server=on,wait=off", escaped);
}

static void add_console(struct arguments *arguments, const char *run_dir)
{
	char *socket_path CLEANUP_FREE = guest_file(run_dir, GUEST_CONSOLE);
	char *log_path CLEANUP_FREE = guest_file(run_dir, GUEST_LOG);
	char *socket CLEANUP_FREE = escape_commas(socket_path);
	char *log CLEANUP_FREE = escape_commas(log_path);

	/* logappend: O_APPEND, so that the log can be cut while it is written. */
	add(arguments, "-chardev");
	add(arguments, "socket,id=console0,path=%s,server=on,wait=off,logfile=%s,logappend=on",
		socket, log);
	add_json(arguments, "-device",
		value_set_string(object("driver", "isa-serial", "serial0"), "chardev", "console0"));
}

static bool is_raw(const struct guest_disk *disk)
{
	return !disk->format || strcmp(disk->format, "raw") == 0;
}

/* The file, and the format on it: it can be exchanged below the format's node. */
static void add_nodes(struct arguments *arguments, const char *node, const struct guest_disk *disk)
{
	bool read_only = disk->read_only;
	char *file_node CLEANUP_FREE = xasprintf("%s-file", node);
	struct value *file = value_new_struct();
	struct value *format = value_new_struct();
	struct value *cache = value_new_struct();

	value_set_bool(cache, "direct", disk->direct);
	value_set_string(file, "driver", "file");
	value_set_string(file, "node-name", file_node);
	value_set_string(file, "filename", disk->path);
	value_set_bool(file, "read-only", read_only);
	value_set_string(file, "discard", "unmap");
	value_set(file, "cache", value_copy(cache));
	value_set_string(format, "driver", is_raw(disk) ? "raw" : disk->format);
	/* An image stands alone: what it says of a backing file is not looked at. */
	if (!is_raw(disk))
		value_set(format, "backing", value_new_nil());
	value_set_string(format, "node-name", node);
	value_set_string(format, "file", file_node);
	value_set_bool(format, "read-only", read_only);
	value_set_string(format, "discard", "unmap");
	value_set(format, "cache", cache);
	add_json(arguments, "-blockdev", file);
	add_json(arguments, "-blockdev", format);
}

static void set_address(struct value *device, unsigned first_slot, size_t i)
{
	size_t slot = first_slot + i / FUNCTIONS;
	size_t function = i % FUNCTIONS;

	value_set_string(device, "bus", "pci.0");
	value_set(device, "addr", value_new_format("%zx.%zx", slot, function));
	if (function == 0)
		value_set_bool(device, "multifunction", true);
}

static void set_boot(struct value *device, unsigned boot_index)
{
	if (boot_index)
		value_set_int(device, "bootindex", boot_index);
}

static void add_disks(struct arguments *arguments, const struct guest_spec *spec)
{
	for (size_t i = 0; i < spec->n_disks; i++) {
		const struct guest_disk *disk = &spec->disks[i];
		char *node CLEANUP_FREE = xasprintf("d%zu", i);
		char *id CLEANUP_FREE = xasprintf("vd%zu", i);
		struct value *device = object("driver", "virtio-blk-pci", id);

		add_nodes(arguments, node, disk);
		value_set_string(device, "drive", node);
		/* An image that is not raw is read through an NBD export of its node, and QEMU 7.2
		 * aborts when a client of the export of a node in an iothread goes. */
		if (is_raw(disk))
			value_set_string(device, "iothread", "io0");
		set_address(device, FIRST_DISK_SLOT, i);
		set_boot(device, disk->boot_index);
		add_json(arguments, "-device", device);
	}
}

static void add_drives(struct arguments *arguments, const struct guest_spec *spec)
{
	for (size_t i = 0; i < spec->n_drives; i++) {
		const struct guest_drive *drive = &spec->drives[i];
		char *node CLEANUP_FREE = xasprintf("cd%zu", i);
		char *id CLEANUP_FREE = xasprintf("ide%zu", i);
		struct value *device = object("driver", "ide-cd", id);

		if (drive->path) {
			const struct guest_disk disc = {
				.path = drive->path, .format = drive->format, .read_only = true};
			add_nodes(arguments, node, &disc);
			value_set_string(device, "drive", node);
		}
		value_set(device, "bus", value_new_format("ide.%zu", i / 2));
		value_set_int(device, "unit", (int64_t)(i % 2));
		set_boot(device, drive->boot_index);
		add_json(arguments, "-device", device);
	}
}

static void add_nics(struct arguments *arguments, const struct guest_spec *spec)
{
	for (size_t i = 0; i < spec->n_nics; i++) {
		const struct guest_nic *nic = &spec->nics[i];
		char *id CLEANUP_FREE = xasprintf("net%zu", i);
		char *netdev CLEANUP_FREE = xasprintf("n%zu", i);
		struct value *device = object("driver", "virtio-net-pci", id);

		/* A hub with one port: what is sent there reaches nobody. */
		add(arguments, "-netdev");
		add(arguments, "hubport,id=%s,hubid=%zu", netdev, i);
		value_set_string(device, "netdev", netdev);
		value_set_string(device, "mac", nic->mac);
		set_address(device, FIRST_NIC_SLOT, i);
		set_boot(device, nic->boot_index);
		/* The boot ROM is another package's; only who boots from it needs it. */
		if (!nic->boot_index)
			value_set_string(device, "romfile", "");
		add_json(arguments, "-device", device);
	}
}

char **guest_argv_new(const struct guest_spec *spec, const char *program, const char *accelerator)
{
	static const char *const always[] = {"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox",
		"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"};
	struct arguments arguments = {0};

	add(&arguments, "%s", program);
	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		add(&arguments, "%s", always[i]);
	add(&arguments, "-pidfile");
	add_owned(&arguments, guest_file(spec->run_dir, GUEST_PIDFILE));
	add_machine(&arguments, spec, accelerator);
	add_kernel(&arguments, spec);
	add_monitor(&arguments, spec->run_dir, GUEST_QMP);
	add_monitor(&arguments, spec->run_dir, GUEST_QMP_SPARE);
	add_console(&arguments, spec->run_dir);
	add_disks(&arguments, spec);
	add_drives(&arguments, spec);
	add_nics(&arguments, spec);
	return arguments.list;
}

char **guest_argv_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
	return NULL;
}
