/* SPDX-License-Identifier: Apache-2.0 */
/* The machine type of a guest. "pc" is an alias, of another type with each release of QEMU, and a
 * guest's memory only fits a machine of the type that it was started with. */
#include "agent/guest/guest.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/run.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX         "-machine" /* of the object's class */
#define LIST_USEC      (10 * USEC_PER_SEC)
#define LIST_MAX_BYTES ((size_t)1 << 20)

int guest_ask_machine(
	struct guest *guest, const struct cancel *cancel, char **ret_machine, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *answer CLEANUP_VALUE = NULL;

	value_set_string(arguments, "path", "/machine");
	value_set_string(arguments, "property", "type");
	int r = guest_command(guest, "qom-get", arguments, cancel, &answer, fault);
	if (r < 0)
		return r;
	char *machine CLEANUP_FREE = xstrdup(value_string(answer, ""));
	size_t length = strlen(machine), n = strlen(SUFFIX);
	if (length > n && strcmp(machine + length - n, SUFFIX) == 0)
		machine[length - n] = '\0';
	if (!guest_machine_is_name(machine))
		return fault_text(fault, -EBADMSG,
			"QEMU says that its machine is of the type \"%s\"", machine);
	*ret_machine = TAKE_PTR(machine);
	return 0;
}

/* A line for each, which the name begins. */
static bool is_listed(const char *list, const char *machine)
{
	size_t n = strlen(machine);

	for (const char *line = list; line;
		line = strchr(line, '\n'), line = line ? line + 1 : NULL)
		if (strncmp(line, machine, n) == 0 && line[n] == ' ')
			return true;
	return false;
}

static int list_machines(
	const char *program, const char *scratch, struct buf *ret_list, struct fault *fault)
{
	const char *const argv[] = {program, "-machine", "help", NULL};
	struct child *child CLEANUP_CHILD = NULL;
	int r = run_start(
		&(struct run_params){.argv = argv, .outlives_with_output = scratch}, &child, fault);

	if (r < 0)
		return r;
	if (run_wait(child, clock_deadline(LIST_USEC)) < 0 || run_status(child) != 0)
		return fault_text(fault, -EIO, "%s -machine help failed", program);
	r = io_read_file(scratch, LIST_MAX_BYTES, ret_list);
	return r < 0 ? fault_errno(fault, r, "%s -machine help: what it said", program) : 0;
}

int guest_check_machine(
	const char *program, const char *scratch, const char *machine, struct fault *fault)
{
	struct buf list CLEANUP_BUF = BUF_INIT;

	if (!guest_machine_is_name(machine))
		return fault_text(fault, -EINVAL, "machine: not the name of a machine type");
	int r = list_machines(program, scratch, &list, fault);
	unlink(scratch);
	if (r < 0 || is_listed(list.data ? list.data : "", machine))
		return r;
	return fault_text(fault, -EOPNOTSUPP,
		"the guest runs in a machine of the type %s, which this host's QEMU has not",
		machine);
}
