/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/bare_guest.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/run.h"
#include "base/uuid.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>

#define PROGRAM      "/usr/bin/qemu-system-x86_64"
#define MEMORY_BYTES (UINT64_C(16) << 20)
#define END_USEC     (20 * USEC_PER_SEC)

static const struct guest_callbacks no_callbacks;

static void make_disk(struct bare_guest *bare, size_t i, uint64_t bytes)
{
	struct guest_disk *disk = &bare->spec.disks[i];

	disk->path = xasprintf("%s/d%zu.raw", bare->folder, i);
	int fd CLEANUP_CLOSE = open(disk->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
}

static void make_qcow2(struct bare_guest *bare, size_t i, uint64_t bytes)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct guest_disk *disk = &bare->spec.disks[i];
	char *size CLEANUP_FREE = xasprintf("%llu", (unsigned long long)bytes);
	struct child *child CLEANUP_CHILD = NULL;

	disk->path = xasprintf("%s/d%zu.qcow2", bare->folder, i);
	disk->format = "qcow2";
	const char *const argv[] = {
		"/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", disk->path, size, NULL};
	const struct run_params params = {.argv = argv, .log_id = "test.image"};
	check_ok(&fault, run_start(&params, &child, &fault));
	assert_int_equal(run_wait(child, clock_deadline(END_USEC)), 0);
	assert_int_equal(run_status(child), 0);
}

/* The same machine: the uuid too. */
static void make_spec(struct bare_guest *bare, const struct bare_guest_params *params)
{
	const struct bare_guest *source = params->source;
	struct guest_spec *spec = &bare->spec;

	*spec = (struct guest_spec){
		.uuid = source ? xstrdup(source->spec.uuid) : uuid_new(),
		.name = xstrdup("bare"),
		.run_dir = xasprintf("%s/run", bare->folder),
		.memory_bytes = params->memory_bytes ? params->memory_bytes : MEMORY_BYTES,
		.vcpus = 1,
		.paused = params->is_paused,
		.incoming = source != NULL,
	};
	spec->n_disks = source ? source->spec.n_disks : params->n_disks;
	spec->disks = xcalloc(spec->n_disks + 1, sizeof(*spec->disks));
	for (size_t i = 0; i < spec->n_disks; i++)
		if (source)
			spec->disks[i].path = xstrdup(source->spec.disks[i].path);
		else if (params->has_qcow2 && i + 1 == spec->n_disks)
			make_qcow2(bare, i, params->disk_bytes);
		else
			make_disk(bare, i, params->disk_bytes);
	if (source)
		spec->memory_bytes = source->spec.memory_bytes;
	bare->has_foreign_disks = source != NULL;
}

void bare_guest_start(struct bare_guest *bare, const struct bare_guest_params *params)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	strcpy(bare->folder, "/tmp/ferry-test-XXXXXX");
	assert_non_null(mkdtemp(bare->folder));
	make_spec(bare, params);
	check_ok(&fault,
		guest_start(&bare->spec, PROGRAM, &no_callbacks, NULL, &bare->guest, &fault));
}

void bare_guest_find(struct bare_guest *bare)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	bare->guest = guest_free(bare->guest);
	int r = guest_find(
		bare->spec.uuid, bare->spec.run_dir, &no_callbacks, &bare->guest, &fault);
	check_ok(&fault, r);
	assert_int_equal(r, 1);
}

void bare_guest_kill(struct bare_guest *bare)
{
	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(bare->guest);
	struct pollfd fd = {.fd = guest_watch_fd(watch), .events = POLLIN};
	uint64_t deadline = clock_deadline(END_USEC);
	bool has_ended = false;

	kill(guest_pid(bare->guest), SIGKILL);
	while (!has_ended && cancel_poll(NULL, &fd, 1, deadline) > 0) {
		char *name CLEANUP_FREE = NULL;
		struct value *data CLEANUP_VALUE = NULL;
		uint64_t usec;
		if (guest_watch_take(watch, &name, &data, &usec))
			has_ended = strcmp(name, "ENDED") == 0;
	}
	assert_true(has_ended);
}

void bare_guest_clear(struct bare_guest *bare)
{
	if (bare->guest && guest_is_alive(bare->guest)) {
		kill(guest_pid(bare->guest), SIGKILL);
		guest_kill(bare->guest, NULL);
	}
	bare->guest = guest_free(bare->guest);
	if (!*bare->folder)
		return;
	guest_forget_run_dir(bare->spec.run_dir);
	for (size_t i = 0; i < bare->spec.n_disks && !bare->has_foreign_disks; i++)
		unlink(bare->spec.disks[i].path);
	rmdir(bare->folder);
	guest_spec_clear(&bare->spec);
	*bare = (struct bare_guest){0};
}

/* --- Commands -----------------------------------------------------------------------------------
 */

static struct value *ask(struct bare_guest *bare, const char *command, const char *text)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *arguments CLEANUP_VALUE = NULL;
	struct value *answer = NULL;

	if (text)
		check_ok(&fault, json_decode(text, strlen(text), NULL, &arguments, &fault));
	check_ok(&fault, guest_command(bare->guest, command, arguments, NULL, &answer, &fault));
	return answer;
}

struct value *bare_guest_ask(
	struct bare_guest *bare, const char *command, const char *arguments_format, ...)
{
	char *text CLEANUP_FREE = NULL;
	va_list args;

	va_start(args, arguments_format);
	text = arguments_format ? xvasprintf(arguments_format, args) : NULL;
	va_end(args);
	return ask(bare, command, text);
}

void bare_guest_do(struct bare_guest *bare, const char *command, const char *arguments_format, ...)
{
	char *text CLEANUP_FREE = NULL;
	va_list args;

	va_start(args, arguments_format);
	text = arguments_format ? xvasprintf(arguments_format, args) : NULL;
	va_end(args);
	value_free(ask(bare, command, text));
}

void bare_guest_io(struct bare_guest *bare, size_t disk, const char *format, ...)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *answer CLEANUP_VALUE = NULL;
	char *command CLEANUP_FREE = NULL;
	va_list args;

	va_start(args, format);
	command = xvasprintf(format, args);
	va_end(args);
	value_set(arguments, "command-line",
		value_new_format("qemu-io -d /machine/peripheral/vd%zu/virtio-backend \"%s\"", disk,
			command));
	check_ok(&fault, guest_command(bare->guest, "human-monitor-command", arguments, NULL,
				 &answer, &fault));
	/* It says something only when it cannot. */
	assert_string_equal(value_string(answer, "(no text)"), "");
}

bool bare_guest_is_running(struct bare_guest *bare)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	bool is_running = false;

	check_ok(&fault, guest_is_running(bare->guest, &is_running, &fault));
	return is_running;
}
