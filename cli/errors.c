/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/errors.h"

#include "base/alloc.h"
#include "base/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

struct explanation {
	const char *code;
	/* {0} is the first parameter, {0:VM} a ref of that class; a sentence that names more
	 * parameters than came is not used. */
	const char *sentence;
	const char *next; /* what to do; may be NULL */
};

static const struct explanation explanations[] = {
	{"CANNOT_CONTACT_HOST", "no answer from {0}: {1}",
		"check the address and that ferryd runs there"},
	{"CANNOT_CONTACT_HOST", "no answer from {0}", "check that ferryd runs there"},
	{"DUPLICATE_MAC_SEED", "the destination has a VM with the same MAC seed {0}", NULL},
	{"HANDLE_INVALID", "there is no {0} {1} (any more)", NULL},
	{"HOST_CANNOT_ATTACH_NETWORK", "host {0:host} is not on network {1:network}",
		"name another network with --transfer-network"},
	{"HOST_DISABLED", "host {0:host} is disabled", "enable it, or name another with --host"},
	{"HOST_IS_SLAVE", "this host is a member of a pool; its coordinator is {0}",
		"use the coordinator as --server"},
	{"HOST_NOT_ENOUGH_FREE_MEMORY",
		"the host has not enough memory: {0} bytes needed, {1} free", NULL},
	{"HOST_NOT_LIVE", "the host is not running", NULL},
	{"HOST_STILL_BOOTING", "the host is still starting", "try again in a moment"},
	{"IMPORT_ERROR", "this cannot be imported: {0}", NULL},
	{"IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", "disks are not there: {0}",
		"bring them first, or leave them out with --force"},
	{"IMPORT_ERROR_FAILED_TO_FIND_OBJECT", "the file names {0}, which is not in it", NULL},
	{"IMPORT_ERROR_UNEXPECTED_FILE", "the file begins with {1}, not with {0}", NULL},
	{"IMPORT_ERROR_PREMATURE_EOF", "not all of the file arrived: {0}",
		"what the disk holds is undefined now: import it again"},
	{"INTERFACE_HAS_NO_IP", "interface {0:PIF} of the destination has no address",
		"name another network with --transfer-network"},
	{"INTERNAL_ERROR", "{0}", NULL},
	{"INVALID_VALUE", "{1} is not allowed for {0}", NULL},
	{"JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", "a host that has a shared SR cannot join a pool",
		"forget the SR, and attach it again from the pool"},
	{"LOCATION_NOT_UNIQUE", "SR {0:SR} holds {1} already", NULL},
	{"MAC_INVALID", "{0} is no MAC address", NULL},
	{"MESSAGE_METHOD_UNKNOWN", "the server does not know {0}",
		"it may be older than this program"},
	{"MESSAGE_PARAMETER_COUNT_MISMATCH", "the server takes {1} parameters for {0}, got {2}",
		"it may be of another version than this program"},
	{"MIRROR_FAILED", "copying disk {0:VDI} failed", NULL},
	{"NOT_IN_EMERGENCY_MODE", "{0}", NULL},
	{"OPERATION_BLOCKED", "the operation is blocked on this object: {1}",
		"see blocked_operations in `ferry --json vm show`"},
	{"OPERATION_NOT_ALLOWED", "not allowed: {0}", NULL},
	{"OTHER_OPERATION_IN_PROGRESS", "another operation is in progress on this {0}: {2}",
		"wait for it (`ferry task list`), or cancel it"},
	{"OTHER_OPERATION_IN_PROGRESS", "another operation is in progress on this {0}",
		"wait for it (`ferry task list`), or cancel it"},
	{"PBD_EXISTS", "host {1:host} has a PBD of SR {0:SR} already", NULL},
	{"RBAC_PERMISSION_DENIED", "this user may not do {0}: {1}",
		"a pool-admin can change that: `ferry user set-role`"},
	{"RBAC_PERMISSION_DENIED", "this user may not do {0}", NULL},
	{"SESSION_AUTHENTICATION_FAILED", "the server refuses user {0} with this password",
		"mend user and password in the configuration"},
	{"SESSION_INVALID", "the session has ended", "run the command again"},
	{"SR_BACKEND_FAILURE_44", "not enough space: {1}", "free some, or choose another SR"},
	{"SR_DOES_NOT_SUPPORT_MIGRATION", "SR {0:SR} cannot take part in a migration", NULL},
	{"SR_BACKEND_FAILURE_47", "{1}", NULL},
	{"SR_HAS_MULTIPLE_PBDS", "SR {0:SR} is reached by several hosts",
		"`ferry sr detach` all but one"},
	{"SR_HAS_PBD", "another host has SR {0:SR} plugged in", "`ferry sr detach` it there first"},
	{"SR_NOT_ATTACHED", "SR {0:SR} is not attached to the host", NULL},
	{"SR_NOT_EMPTY", "the SR still holds disks",
		"destroy them, or `ferry sr forget` keeps the files"},
	{"SR_NOT_SHARABLE", "SR {0:SR} is not shared: one host has it",
		"make it with `ferry sr create --shared`"},
	{"SR_UNKNOWN_DRIVER", "the server has no SRs of type {0}", "use --type file"},
	{"TASK_CANCELLED", "cancelled", NULL},
	{"TLS_CONNECTION_FAILED", "the certificate of {0} is not trusted", NULL},
	{"TOO_MANY_STORAGE_MIGRATES", "{0} migrations run on this host already",
		"wait for one to end (`ferry migration list`)"},
	{"UUID_INVALID", "there is no {0} with uuid {1}", NULL},
	{"VDI_CBT_ENABLED", "disk {0:VDI} has changed block tracking on", "turn it off first"},
	{"VDI_INCOMPATIBLE_TYPE", "disk {0:VDI} is of a type that cannot be moved", NULL},
	{"VDI_IN_USE", "disk {0:VDI} is in use by {1}",
		"see its VMs with `ferry vdi show`, and detach it with `ferry vbd destroy`"},
	{"VDI_IS_ENCRYPTED", "disk {0:VDI} is encrypted", NULL},
	{"VDI_MISSING", "the image of disk {1:VDI} is gone from SR {0:SR}",
		"`ferry sr scan` looks again"},
	{"VDI_READONLY", "disk {0:VDI} is read-only, or a snapshot", NULL},
	{"VDI_TOO_SMALL", "disk {0:VDI} is too small: {1} bytes are needed",
		"grow it with `ferry vdi resize`"},
	{"VDI_NOT_IN_MAP", "disk {0:VDI} has no SR at the destination",
		"give --sr SR or --map VDI=SR"},
	{"VIF_NOT_IN_MAP", "network card {0:VIF} has no network at the destination",
		"give --network NETWORK or --vif-map VIF=NETWORK"},
	{"VM_BAD_POWER_STATE", "VM {0:VM} is {2}, but must be {1}", NULL},
	{"VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", "VM {0:VM} did not shut down in time",
		"`ferry vm shutdown --force` ends it"},
	{"VM_INCOMPATIBLE_WITH_THIS_HOST", "VM {0:VM} cannot run on host {1:host}: {2}", NULL},
	{"VM_IS_IMMOBILE", "VM {0:VM} cannot be moved", NULL},
	{"VM_IS_SNAPSHOT", "VM {0:VM} is a snapshot", NULL},
	{"VM_IS_TEMPLATE", "VM {0:VM} is a template", NULL},
	{"VM_MEMORY_SIZE_TOO_LOW", "VM {0:VM} has too little memory to be started", NULL},
	{"VM_MIGRATE_FAILED", "migrating VM {0} failed: {3}", NULL},
	{"VM_REQUIRES_NETWORK", "the host cannot join VM {0:VM} to network {1:network}",
		"guests join networks without a bridge only"},
	{"VM_REQUIRES_SR", "VM {0:VM} needs SR {1:SR}", NULL},
	{CLI_FAILED, "{0}", NULL},
	{CLI_USAGE, "{0}", NULL},
};

int cli_fail(struct fault *fault, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	return fault_set(fault, error, CLI_FAILED, text, NULL);
}

int cli_usage(struct fault *fault, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	return fault_set(fault, -EINVAL, CLI_USAGE, text, NULL);
}

struct explaining {
	const struct fault *fault;
	errors_describe describe;
	void *arg;
};

static void append_param(
	const struct explaining *state, const char *param, const char *class, struct buf *out)
{
	bool is_ref = strncmp(param, REF_PREFIX, strlen(REF_PREFIX)) == 0;
	char *text CLEANUP_FREE = class && is_ref && state->describe
					  ? state->describe(state->arg, class, param)
					  : NULL;

	buf_append_string(out, text ? text : param);
}

/* False when the sentence wants a parameter that is not there. */
static bool fill(const struct explaining *state, const char *sentence, struct buf *out)
{
	while (*sentence) {
		if (sentence[0] != '{' || !isdigit((unsigned char)sentence[1])) {
			buf_append_char(out, *sentence++);
			continue;
		}
		const char *end = strchr(sentence, '}');
		size_t index = (size_t)(sentence[1] - '0');
		if (index >= state->fault->n_params || !*state->fault->params[index])
			return false;
		char *class CLEANUP_FREE =
			sentence[2] == ':' ? xstrndup(sentence + 3, (size_t)(end - sentence - 3))
					   : NULL;
		append_param(state, state->fault->params[index], class, out);
		sentence = end + 1;
	}
	return true;
}

/* A back end's failure: the number is part of the code, the message is the second parameter. */
static bool fill_back_end(const struct explaining *state, struct buf *out)
{
	static const char prefix[] = "SR_BACKEND_FAILURE_";

	if (strncmp(state->fault->code, prefix, strlen(prefix)) != 0)
		return false;
	return fill(state, "the storage failed: {1}", out);
}

void errors_explain(const struct fault *fault, errors_describe describe, void *arg, struct buf *out)
{
	const struct explaining state = {.fault = fault, .describe = describe, .arg = arg};
	const struct explanation *found = NULL;
	struct buf text CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(explanations) && !found; i++) {
		if (!fault_is(fault, explanations[i].code))
			continue;
		buf_free(&text);
		if (fill(&state, explanations[i].sentence, &text))
			found = &explanations[i];
	}
	if (!found) {
		buf_free(&text);
		if (!fault->code || !fill_back_end(&state, &text)) {
			char *plain CLEANUP_FREE = fault_describe(fault);
			buf_printf(out, "ferry: %s\n", plain);
			return;
		}
	}
	bool own = fault_is(fault, CLI_FAILED) || fault_is(fault, CLI_USAGE);
	buf_printf(out, "ferry: %s", text.data ? text.data : "");
	if (!own)
		buf_printf(out, " [%s]", fault->code);
	buf_append_char(out, '\n');
	if (found && found->next)
		buf_printf(out, "       %s\n", found->next);
}
