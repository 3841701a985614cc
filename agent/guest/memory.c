/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/memory.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>

#define LOOK_USEC USEC_PER_SEC
/* Until a guest whose move was cancelled runs again. */
#define RESUME_USEC (5 * USEC_PER_SEC)
/* QEMU: MAX_MIGRATE_DOWNTIME; downtime-limit is in milliseconds. */
#define MAX_DOWNTIME_MSEC 2000000

/* The name that QEMU has for it; the first row of a status is the one that is shown. */
static const struct {
	const char *name;
	enum memory_status status;
} statuses[] = {
	{"none", MEMORY_NONE},
	{"active", MEMORY_ACTIVE},
	{"setup", MEMORY_ACTIVE},
	{"wait-unplug", MEMORY_ACTIVE},
	{"pre-switchover", MEMORY_PRE_SWITCHOVER},
	{"device", MEMORY_DEVICE},
	{"completed", MEMORY_COMPLETED},
	{"failed", MEMORY_FAILED},
	{"cancelling", MEMORY_CANCELLING},
	{"cancelled", MEMORY_CANCELLED},
};

const char *memory_status_name(enum memory_status status)
{
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].status == status)
			return statuses[i].name;
	return "unknown";
}

/* --- Beginning ----------------------------------------------------------------------------------
 */

static int set_capabilities(
	struct guest *guest, const char *const *names, size_t n, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *list = value_new_array();

	value_set(arguments, "capabilities", list);
	for (size_t i = 0; i < n; i++) {
		struct value *capability = value_new_struct();
		value_set_string(capability, "capability", names[i]);
		value_set_bool(capability, "state", true);
		value_append(list, capability);
	}
	return guest_command(guest, "migrate-set-capabilities", arguments, NULL, NULL, fault);
}

static int call_with_uri(
	struct guest *guest, const char *command, const char *uri, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_string(arguments, "uri", uri);
	return guest_command(guest, command, arguments, NULL, NULL, fault);
}

int memory_listen(struct guest *guest, const char *uri, struct fault *fault)
{
	/* Without late-block-activate it takes the locks of its images, and writes into a qcow2
	 * one, as soon as it has everything. Until it is told to run, a shared image is the
	 * source's. */
	static const char *const capabilities[] = {"events", "return-path", "late-block-activate"};
	int r = set_capabilities(guest, capabilities, ARRAY_SIZE(capabilities), fault);

	return r < 0 ? r : call_with_uri(guest, "migrate-incoming", uri, fault);
}

int memory_set_limits(struct guest *guest, uint64_t max_bytes_per_sec, uint64_t downtime_limit_usec,
	struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	uint64_t msec = downtime_limit_usec / USEC_PER_MSEC;

	value_set_int(
		arguments, "max-bandwidth", (int64_t)MIN(max_bytes_per_sec, (uint64_t)INT64_MAX));
	/* With 0 it would never end. */
	value_set_int(arguments, "downtime-limit",
		(int64_t)MAX(1, MIN(msec, (uint64_t)MAX_DOWNTIME_MSEC)));
	return guest_command(guest, "migrate-set-parameters", arguments, NULL, NULL, fault);
}

int memory_start(struct guest *guest, const struct memory_params *params, struct fault *fault)
{
	/* Without return-path the source is `completed` although the destination could not take its
	 * state over. */
	static const char *const capabilities[] = {
		"events", "pause-before-switchover", "return-path"};
	int r = set_capabilities(guest, capabilities, ARRAY_SIZE(capabilities), fault);

	if (r == 0)
		r = memory_set_limits(
			guest, params->max_bytes_per_sec, params->downtime_limit_usec, fault);
	if (r == 0)
		r = call_with_uri(guest, "migrate", params->uri, fault);
	return r;
}

/* --- State --------------------------------------------------------------------------------------
 */

static int parse_status(const char *name, enum memory_status *ret_status, struct fault *fault)
{
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (strcmp(statuses[i].name, name) != 0)
			continue;
		*ret_status = statuses[i].status;
		return 0;
	}
	return fault_text(fault, -EBADMSG,
		"query-migrate: QEMU says \"%s\", which no move of ours can be", name);
}

static uint64_t find_count(const struct value *record, const char *name)
{
	int64_t count = value_find_int(record, name, 0);

	return count > 0 ? (uint64_t)count : 0;
}

/* "mbps" is a number of 10^6 bits a second. */
static uint64_t find_rate(const struct value *ram)
{
	const struct value *mbps = value_find(ram, "mbps");

	if (mbps && mbps->type == VALUE_DOUBLE && mbps->real > 0 && mbps->real < 1e9)
		return (uint64_t)(mbps->real * 1e6 / 8);
	return find_count(ram, "mbps") * 1000000 / 8;
}

static void read_progress(const struct value *answer, struct memory_progress *progress)
{
	const struct value *ram = value_find(answer, "ram");
	uint64_t page = find_count(ram, "page-size");

	progress->total_bytes = find_count(ram, "total");
	progress->remaining_bytes = find_count(ram, "remaining");
	progress->transferred_bytes = find_count(ram, "transferred");
	progress->dirty_bytes_per_sec = find_count(ram, "dirty-pages-rate") * page;
	progress->rate_bytes_per_sec = find_rate(ram);
	progress->n_passes = (unsigned)find_count(ram, "dirty-sync-count");
	progress->expected_downtime_usec = find_count(answer, "expected-downtime") * USEC_PER_MSEC;
	snprintf(progress->error, sizeof(progress->error), "%s",
		value_find_string(answer, "error-desc", ""));
}

static int query_until(struct guest *guest, uint64_t deadline_usec, const struct cancel *cancel,
	struct memory_progress *ret_progress, struct fault *fault)
{
	struct value *answer CLEANUP_VALUE = NULL;
	struct memory_progress progress = {0};
	int r = guest_command_until(
		guest, "query-migrate", NULL, deadline_usec, cancel, &answer, fault);

	if (r == 0)
		r = parse_status(
			value_find_string(answer, "status", "none"), &progress.status, fault);
	if (r < 0)
		return r;
	read_progress(answer, &progress);
	*ret_progress = progress;
	return 0;
}

int memory_query(struct guest *guest, struct memory_progress *ret_progress, struct fault *fault)
{
	return query_until(guest, clock_deadline(5 * USEC_PER_SEC), NULL, ret_progress, fault);
}

bool memory_is_handed_over(const struct memory_progress *progress)
{
	return progress->status == MEMORY_COMPLETED && progress->total_bytes > 0;
}

/* --- Waiting ------------------------------------------------------------------------------------
 */

/* Returns whether the guest has ended. */
static bool drop_events(struct guest_watch *watch)
{
	char *name;
	struct value *data;
	uint64_t usec;
	bool has_ended = false;

	while (guest_watch_take(watch, &name, &data, &usec)) {
		has_ended = has_ended || strcmp(name, "ENDED") == 0;
		free(name);
		value_free(data);
	}
	return has_ended;
}

/* While the other side hangs the monitor does not answer: that is no error before the deadline. */
static int look(struct guest *guest, const struct cancel *cancel,
	struct memory_progress *ret_progress, bool *ret_has_answered, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = query_until(guest, clock_deadline(LOOK_USEC), cancel, ret_progress, &why);

	*ret_has_answered = r == 0;
	if (r == 0 || r == -ETIMEDOUT)
		return 0;
	fault_move(fault, &why);
	return r;
}

static int report_timeout(const struct memory_progress *progress, struct fault *fault)
{
	return fault_text(fault, -ETIMEDOUT,
		"The move of the guest's memory is still \"%s\" at the deadline",
		memory_status_name(progress->status));
}

int memory_await(struct guest *guest, struct guest_watch *watch, unsigned while_status, int wake_fd,
	uint64_t deadline_usec, const struct cancel *cancel, struct memory_progress *ret_progress,
	struct fault *fault)
{
	struct pollfd fds[] = {
		{.fd = guest_watch_fd(watch), .events = POLLIN},
		{.fd = wake_fd, .events = POLLIN}, /* poll(2) leaves out a negative one */
	};
	struct memory_progress progress = {0};

	for (;;) {
		bool has_answered = false;
		/* First the events, then the look: what comes in between wakes the poll. */
		if (drop_events(watch))
			return fault_text(fault, -ECONNRESET,
				"The guest's QEMU ended while its memory was moved");
		int r = look(guest, cancel, &progress, &has_answered, fault);
		if (r < 0)
			return r;
		*ret_progress = progress;
		if (has_answered && !(while_status & 1U << progress.status))
			return 0;
		if (clock_now_usec() >= deadline_usec)
			return report_timeout(&progress, fault);
		r = cancel_poll(cancel, fds, ARRAY_SIZE(fds),
			MIN(deadline_usec, clock_deadline(LOOK_USEC)));
		if (r < 0)
			return fault_errno(fault, r, "Waiting for the move of the guest's memory");
		if (fds[1].revents)
			return 0;
	}
}

/* --- Ends ---------------------------------------------------------------------------------------
 */

int memory_continue(struct guest *guest, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(guest);
	struct memory_progress progress;

	value_set_string(arguments, "state", "pre-switchover");
	int r = guest_command(guest, "migrate-continue", arguments, NULL, NULL, fault);
	if (r < 0)
		return r;
	/* A thread of QEMU's goes on a little later: until then memory_cancel would take it for one
	 * that has not been continued. What follows is not this call's matter. */
	memory_await(guest, watch, 1U << MEMORY_PRE_SWITCHOVER, -1, clock_deadline(LOOK_USEC), NULL,
		&progress, NULL);
	return 0;
}

/* QEMU gives the guest back a little after it says so. */
static int await_resume(struct guest *guest, struct guest_watch *watch, struct fault *fault)
{
	struct pollfd fd = {.fd = guest_watch_fd(watch), .events = POLLIN};
	uint64_t deadline = clock_deadline(RESUME_USEC);

	for (;;) {
		struct value *status CLEANUP_VALUE = NULL;
		if (drop_events(watch))
			return fault_text(fault, -ECONNRESET, "The guest's QEMU has ended");
		int r = guest_command(guest, "query-status", NULL, NULL, &status, fault);
		if (r < 0)
			return r;
		if (strcmp(value_find_string(status, "status", ""), "finish-migrate") != 0)
			return 0;
		if (clock_now_usec() >= deadline)
			return fault_text(fault, -ETIMEDOUT,
				"QEMU does not resume the guest after its move was cancelled");
		cancel_poll(NULL, &fd, 1, MIN(deadline, clock_deadline(LOOK_USEC)));
	}
}

static int cancel_active(struct guest *guest, struct guest_watch *watch, struct fault *fault)
{
	struct memory_progress progress;
	int r = guest_command(guest, "migrate_cancel", NULL, NULL, NULL, fault);

	if (r < 0)
		return r;
	return memory_await(guest, watch,
		1U << MEMORY_ACTIVE | 1U << MEMORY_PRE_SWITCHOVER | 1U << MEMORY_CANCELLING, -1,
		clock_deadline(RESUME_USEC), NULL, &progress, fault);
}

int memory_cancel(struct guest *guest, struct fault *fault)
{
	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(guest);
	struct memory_progress progress;
	bool is_running = false;
	int r = memory_query(guest, &progress, fault);

	/* One that was taken back after its hand over says "completed" until its next move. */
	if (r == 0 && memory_is_handed_over(&progress))
		r = guest_is_running(guest, &is_running, fault);
	if (r < 0 || is_running)
		return r;
	if (progress.status == MEMORY_DEVICE || memory_is_handed_over(&progress))
		return fault_text(fault, -EBUSY,
			"The move of the guest's memory is \"%s\": it has been continued, and QEMU "
			"must not be told to cancel any more, as both sides could run",
			memory_status_name(progress.status));
	if (progress.status != MEMORY_NONE && progress.status != MEMORY_FAILED &&
		progress.status != MEMORY_CANCELLED && progress.status != MEMORY_COMPLETED)
		r = cancel_active(guest, watch, fault);
	return r < 0 ? r : await_resume(guest, watch, fault);
}

int memory_yank(struct guest *guest, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *instances = value_new_array();

	value_append(instances, value_set_string(value_new_struct(), "type", "migration"));
	value_set(arguments, "instances", instances);
	return guest_command_oob(guest, "yank", arguments, NULL, fault);
}
