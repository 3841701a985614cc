/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "agent/guest/guest_spec.h"
#include "base/alloc.h"
#include "base/json.h"

#include <stdlib.h>

struct fixture {
	struct guest_spec spec;
	char **argv;
};

static struct guest_disk *add_disk(struct fixture *f, const char *path)
{
	struct guest_spec *spec = &f->spec;

	spec->disks = xrealloc(spec->disks, spec->n_disks + 1, sizeof(*spec->disks));
	spec->disks[spec->n_disks] = (struct guest_disk){.path = xstrdup(path)};
	return &spec->disks[spec->n_disks++];
}

static void add_nic(struct fixture *f, const char *mac)
{
	struct guest_spec *spec = &f->spec;

	spec->nics = xrealloc(spec->nics, spec->n_nics + 1, sizeof(*spec->nics));
	spec->nics[spec->n_nics++] = (struct guest_nic){.mac = xstrdup(mac)};
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->spec = (struct guest_spec){
		.uuid = xstrdup("5b0ff9fc-3d24-4e1f-a4b7-5c0b5ad6d3c1"),
		.name = xstrdup("web, one"),
		.run_dir = xstrdup("/run/x"),
		.memory_bytes = 256 << 20,
		.vcpus = 3,
	};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_argv_free(f->argv);
	guest_spec_clear(&f->spec);
	free(f);
	return 0;
}

static void build(struct fixture *f)
{
	f->argv = guest_argv_free(f->argv);
	f->argv = guest_argv_new(&f->spec, "/usr/bin/qemu", "tcg");
}

/* What follows the n-th such option; NULL: it is not there. */
static const char *option(const struct fixture *f, const char *name, size_t n)
{
	for (size_t i = 0; f->argv[i]; i++)
		if (strcmp(f->argv[i], name) == 0 && n-- == 0)
			return f->argv[i + 1];
	return NULL;
}

/* The -device or -blockdev whose key has that value; the caller frees it. */
static struct value *find_json(
	const struct fixture *f, const char *name, const char *key, const char *wanted)
{
	const char *text;

	for (size_t n = 0; (text = option(f, name, n)); n++) {
		struct value *object CLEANUP_VALUE = NULL;
		assert_int_equal(json_decode(text, strlen(text), NULL, &object, NULL), 0);
		if (strcmp(value_find_string(object, key, ""), wanted) == 0)
			return TAKE_PTR(object);
	}
	return NULL;
}

static void check_text(const struct value *object, const char *key, const char *expected)
{
	assert_string_equal(value_find_string(object, key, "(none)"), expected);
}

static void the_machine_is_what_the_spec_says(void **state)
{
	struct fixture *f = *state;

	build(f);
	assert_string_equal(f->argv[0], "/usr/bin/qemu");
	/* Without KVM no multiple of 64 pages. */
	assert_string_equal(option(f, "-m", 0), "262152K");
	assert_string_equal(option(f, "-smp", 0), "3");
	assert_string_equal(option(f, "-uuid", 0), f->spec.uuid);
	assert_string_equal(option(f, "-name", 0), "guest=web,, one");
	assert_string_equal(option(f, "-machine", 0), "pc,accel=tcg,usb=off");
	assert_string_equal(option(f, "-pidfile", 0), "/run/x/pid");
	assert_string_equal(option(f, "-qmp", 0), "unix:/run/x/qmp,server=on,wait=off");
	assert_non_null(strstr(option(f, "-sandbox", 0), "spawn=deny"));
	assert_null(option(f, "-kernel", 0));
	assert_null(option(f, "-S", 0));
	assert_null(option(f, "-no-reboot", 0));
}

static void a_kernel_is_started_with_its_arguments_as_they_are(void **state)
{
	struct fixture *f = *state;

	f->spec.kernel = xstrdup("/boot/a,b");
	f->spec.ramdisk = xstrdup("/boot/r");
	f->spec.args = xstrdup("console=ttyS0,115200 -S");
	f->spec.paused = true;
	f->spec.reset_ends = true;
	build(f);
	assert_string_equal(option(f, "-kernel", 0), "/boot/a,b");
	assert_string_equal(option(f, "-initrd", 0), "/boot/r");
	assert_string_equal(option(f, "-append", 0), "console=ttyS0,115200 -S");
	assert_non_null(option(f, "-S", 0));
	assert_non_null(option(f, "-no-reboot", 0));
}

static void one_that_waits_for_memory_runs_only_when_told(void **state)
{
	struct fixture *f = *state;

	f->spec.incoming = true;
	build(f);
	assert_non_null(option(f, "-S", 0));
	assert_string_equal(option(f, "-incoming", 0), "defer");
}

static void a_disk_is_a_file_below_a_format_below_a_device(void **state)
{
	struct fixture *f = *state;

	struct guest_disk *disk = add_disk(f, "/srv/one.raw");
	disk->direct = true;
	disk->boot_index = 1;
	add_disk(f, "/srv/a,b \"c\".raw")->read_only = true;
	build(f);
	struct value *file CLEANUP_VALUE = find_json(f, "-blockdev", "node-name", "d0-file");
	struct value *format CLEANUP_VALUE = find_json(f, "-blockdev", "node-name", "d0");
	struct value *device CLEANUP_VALUE = find_json(f, "-device", "id", "vd0");
	check_text(file, "filename", "/srv/one.raw");
	assert_true(value_find_bool(value_find(file, "cache"), "direct", false));
	assert_false(value_find_bool(file, "read-only", true));
	check_text(format, "driver", "raw");
	check_text(format, "file", "d0-file");
	check_text(device, "drive", "d0");
	check_text(device, "iothread", "io0");
	check_text(device, "addr", "4.0");
	assert_int_equal(value_find_int(device, "bootindex", 0), 1);

	struct value *second CLEANUP_VALUE = find_json(f, "-blockdev", "node-name", "d1-file");
	struct value *place CLEANUP_VALUE = find_json(f, "-device", "id", "vd1");
	check_text(second, "filename", "/srv/a,b \"c\".raw");
	assert_true(value_find_bool(second, "read-only", false));
	assert_false(value_find_bool(value_find(second, "cache"), "direct", true));
	check_text(place, "addr", "4.1");
	assert_null(value_find(place, "bootindex"));
}

/* A client of the export of a node in an iothread that goes makes QEMU 7.2 abort. */
static void a_disk_that_is_not_raw_has_no_iothread(void **state)
{
	struct fixture *f = *state;

	add_disk(f, "/srv/one.qcow2")->format = "qcow2";
	add_disk(f, "/srv/two.raw")->format = "raw";
	build(f);
	struct value *format CLEANUP_VALUE = find_json(f, "-blockdev", "node-name", "d0");
	struct value *device CLEANUP_VALUE = find_json(f, "-device", "id", "vd0");
	struct value *other CLEANUP_VALUE = find_json(f, "-device", "id", "vd1");
	struct value *raw CLEANUP_VALUE = find_json(f, "-blockdev", "node-name", "d1");
	check_text(format, "driver", "qcow2");
	check_text(format, "discard", "unmap");
	/* Said, so that QEMU does not look for one in the image. */
	assert_int_equal(value_find(format, "backing")->type, VALUE_NIL);
	assert_null(value_find(device, "iothread"));
	check_text(other, "iothread", "io0");
	assert_null(value_find(raw, "backing"));
}

static void no_two_devices_have_one_address(void **state)
{
	struct fixture *f = *state;
	struct value *seen CLEANUP_VALUE = value_new_struct();
	const char *text;
	size_t n_devices = 0;

	for (size_t i = 0; i < GUEST_MAX_DISKS; i++)
		add_disk(f, "/d");
	for (size_t i = 0; i < GUEST_MAX_NICS; i++)
		add_nic(f, "02:00:00:00:00:01");
	assert_int_equal(guest_spec_check(&f->spec, NULL), 0);
	build(f);
	for (size_t n = 0; (text = option(f, "-device", n)); n++) {
		struct value *device CLEANUP_VALUE = NULL;
		assert_int_equal(json_decode(text, strlen(text), NULL, &device, NULL), 0);
		const char *address = value_find_string(device, "addr", NULL);
		if (!address)
			continue;
		assert_null(value_find(seen, address));
		value_set_bool(seen, address, true);
		/* PCI has 32 slots, in hexadecimal. */
		assert_true(strtoul(address, NULL, 16) < 32);
		n_devices++;
	}
	assert_int_equal(n_devices, GUEST_MAX_DISKS + GUEST_MAX_NICS);
}

static void too_many_devices_are_refused_with_the_limit(void **state)
{
	struct fixture *f = *state;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	for (size_t i = 0; i <= GUEST_MAX_NICS; i++)
		add_nic(f, "02:00:00:00:00:01");
	assert_true(guest_spec_check(&f->spec, &fault) < 0);
	assert_string_equal(fault.code, "OPERATION_NOT_ALLOWED");
	assert_string_equal(
		fault.params[0], "The VM has 17 network cards, and a guest can have 16");
}

static void an_empty_drive_has_no_medium(void **state)
{
	struct fixture *f = *state;
	struct guest_spec *spec = &f->spec;

	spec->drives = xcalloc(2, sizeof(*spec->drives));
	spec->n_drives = 2;
	spec->drives[1].path = xstrdup("/srv/cd.iso");
	build(f);
	struct value *empty CLEANUP_VALUE = find_json(f, "-device", "id", "ide0");
	struct value *full CLEANUP_VALUE = find_json(f, "-device", "id", "ide1");
	struct value *medium CLEANUP_VALUE = find_json(f, "-blockdev", "node-name", "cd1-file");
	assert_null(value_find(empty, "drive"));
	check_text(full, "drive", "cd1");
	assert_true(value_find_bool(medium, "read-only", false));
}

static void with_kvm_the_memory_is_as_asked(void **state)
{
	struct fixture *f = *state;

	f->argv = guest_argv_free(f->argv);
	f->argv = guest_argv_new(&f->spec, "/usr/bin/qemu", "kvm:tcg");
	assert_string_equal(option(f, "-m", 0), "262144K");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_machine_is_what_the_spec_says),
		TEST(with_kvm_the_memory_is_as_asked),
		TEST(a_kernel_is_started_with_its_arguments_as_they_are),
		TEST(one_that_waits_for_memory_runs_only_when_told),
		TEST(a_disk_is_a_file_below_a_format_below_a_device),
		TEST(a_disk_that_is_not_raw_has_no_iothread),
		TEST(no_two_devices_have_one_address),
		TEST(too_many_devices_are_refused_with_the_limit),
		TEST(an_empty_drive_has_no_medium),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
