/* SPDX-License-Identifier: Apache-2.0 */
/* block_set_io_throttle sets all limits of a device at once, so each command repeats those that are
 * to stay. QEMU refuses a limit for reads and writes together beside one for writes alone. */
#include "agent/guest/throttle.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* QEMU: THROTTLE_VALUE_MAX. */
#define MAX_LIMIT INT64_C(1000000000000000)

/* In query-block's "inserted" as in the command's arguments. */
static const char *const limit_names[] = {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr",
	"bps_max", "bps_rd_max", "bps_wr_max", "iops_max", "iops_rd_max", "iops_wr_max",
	"bps_max_length", "bps_rd_max_length", "bps_wr_max_length", "iops_max_length",
	"iops_rd_max_length", "iops_wr_max_length", "iops_size", "group"};

/* These must be given. */
#define N_REQUIRED 6

static struct value *read_limits(const struct value *inserted)
{
	struct value *limits = value_new_struct();

	for (size_t i = 0; i < ARRAY_SIZE(limit_names); i++) {
		const struct value *limit = value_find(inserted, limit_names[i]);
		if (limit)
			value_set(limits, limit_names[i], value_copy(limit));
		else if (i < N_REQUIRED)
			value_set_int(limits, limit_names[i], 0);
	}
	return limits;
}

int throttle_read(struct guest *guest, struct value **ret_limits, struct fault *fault)
{
	struct value *devices CLEANUP_VALUE = NULL;
	int r = guest_command(guest, "query-block", NULL, NULL, &devices, fault);

	if (r < 0)
		return r;
	if (devices->type != VALUE_ARRAY)
		return fault_text(fault, -EBADMSG, "query-block: QEMU's answer is no list");
	struct value *limits = value_new_struct();
	for (size_t i = 0; i < devices->array.n_items; i++) {
		const struct value *inserted = value_find(devices->array.items[i], "inserted");
		const char *device = value_find_string(devices->array.items[i], "qdev", NULL);
		if (device && inserted && !value_find_bool(inserted, "ro", true))
			value_set(limits, device, read_limits(inserted));
	}
	*ret_limits = limits;
	return 0;
}

static int64_t lower(int64_t limit, int64_t other)
{
	return limit > 0 ? MIN(limit, other) : other;
}

/* A limit of the operator's for both ways is parted, so that their sum stays below it. */
static void slow_writes(struct value *limits, int64_t bytes_per_sec)
{
	static const char *const bursts[] = {
		"bps_wr_max", "bps_wr_max_length", "bps_max", "bps_max_length"};
	int64_t both = value_find_int(limits, "bps", 0);

	for (size_t i = 0; i < ARRAY_SIZE(bursts); i++)
		value_unset(limits, bursts[i]);
	if (both > 0 && both <= bytes_per_sec)
		return;
	value_set_int(limits, "bps_wr", lower(value_find_int(limits, "bps_wr", 0), bytes_per_sec));
	if (both > 0)
		value_set_int(limits, "bps_rd", both - bytes_per_sec);
	value_set_int(limits, "bps", 0);
}

static int set_device(
	struct guest *guest, const char *device, const struct value *limits, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_copy(limits);

	value_set_string(arguments, "id", device);
	return guest_command(guest, "block_set_io_throttle", arguments, NULL, NULL, fault);
}

/* All devices, also after one that failed; the first failure counts. bytes_per_sec 0: as stored. */
static int set_all(
	struct guest *guest, const struct value *limits, int64_t bytes_per_sec, struct fault *fault)
{
	int first = 0;

	if (limits->type != VALUE_STRUCT)
		return fault_text(fault, -EINVAL, "The limits of the guest's disks are a %s",
			value_type_name(limits->type));
	for (size_t i = 0; i < limits->record.n_members; i++) {
		const struct value_member *member = &limits->record.members[i];
		struct value *wanted CLEANUP_VALUE = value_copy(member->value);
		struct fault why CLEANUP_FAULT = FAULT_INIT;
		if (bytes_per_sec)
			slow_writes(wanted, bytes_per_sec);
		int r = set_device(guest, member->name, wanted, &why);
		if (r == 0 || first < 0)
			continue;
		first = r;
		fault_move(fault, &why);
	}
	return first;
}

int throttle_set(struct guest *guest, const struct value *limits, uint64_t bytes_per_sec,
	struct fault *fault)
{
	if (bytes_per_sec == 0)
		return fault_text(fault, -EINVAL, "A guest cannot be slowed to 0 bytes a second");
	return set_all(guest, limits, (int64_t)MIN(bytes_per_sec, (uint64_t)MAX_LIMIT), fault);
}

int throttle_restore(struct guest *guest, const struct value *limits, struct fault *fault)
{
	return set_all(guest, limits, 0, fault);
}
