/* SPDX-License-Identifier: Apache-2.0 */
/* The options of VM.migrate_send: a map of texts. */
#include "agent/migrate/plan.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <string.h>

#define MAX_DOWNTIME_MSEC (UINT64_C(3600) * 1000)

static int refuse(const char *name, const char *text, const char *allowed, struct fault *fault)
{
	char *field CLEANUP_FREE = xasprintf("options:%s", name);
	char *why CLEANUP_FREE = xasprintf("%s (allowed: %s)", text, allowed);

	return fault_set(fault, -EINVAL, "INVALID_VALUE", field, why, NULL);
}

static int read_bool(
	const struct value *options, const char *name, struct value *ret, struct fault *fault)
{
	const char *text = value_find_string(options, name, NULL);
	bool value = false;

	if (text && parse_bool(text, &value) < 0)
		return refuse(name, text, "true or false", fault);
	value_set_bool(ret, name, value);
	return 0;
}

static int read_number(const struct value *options, const char *name, uint64_t least, uint64_t most,
	const char *allowed, struct value *ret, struct fault *fault)
{
	const char *text = value_find_string(options, name, NULL);
	uint64_t number;

	if (!text)
		return 0;
	if (parse_uint64(text, &number) < 0 || number < least || number > most)
		return refuse(name, text, allowed, fault);
	value_set_int(ret, name, (int64_t)number);
	return 0;
}

/* words: what is allowed, the first is what is not said; NULL at the end. */
static int read_word(const struct value *options, const char *name, const char *const *words,
	const char *allowed, struct value *ret, struct fault *fault)
{
	const char *text = value_find_string(options, name, words[0]);

	for (; *words; words++)
		if (strcmp(text, *words) == 0) {
			value_set_string(ret, name, text);
			return 0;
		}
	return refuse(name, text, allowed, fault);
}

int plan_options(const struct storage *storage, const struct migrate_request *request,
	struct value **ret_options, struct fault *fault)
{
	static const char *const stall[] = {"abort", "continue", "force", NULL};
	static const char *const unreadable[] = {"fail", "zero", NULL};
	struct value *read CLEANUP_VALUE = value_new_struct();
	char *state CLEANUP_FREE = NULL;

	int r = object_get_string(storage->pool, "VM", request->vm, "power_state", &state, fault);
	if (r == 0)
		r = read_bool(request->options, "copy", read, fault);
	if (r == 0)
		r = read_bool(request->options, "throttle", read, fault);
	if (r == 0)
		r = read_number(request->options, "max_downtime", 1, MAX_DOWNTIME_MSEC,
			"milliseconds, 1 to 3600000", read, fault);
	if (r == 0)
		r = read_number(request->options, "bandwidth", 1, INT64_MAX,
			"bytes a second, at least 1", read, fault);
	if (r == 0)
		r = read_word(request->options, "on_no_convergence", stall,
			"abort, continue or force", read, fault);
	if (r == 0)
		r = read_word(
			request->options, "on_read_error", unreadable, "fail or zero", read, fault);
	if (r < 0)
		return r;
	bool live = strcmp(state, "Running") == 0;
	if (live && value_find_bool(read, "copy", false))
		return refuse("copy", "true", "only for a VM that is halted", fault);
	value_set_bool(read, "live", live);
	*ret_options = TAKE_PTR(read);
	return 0;
}
