/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/device.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "cli/errors.h"

#include <errno.h>
#include <string.h>

/* XenAPI's guests see at most this many. */
#define MAX_PLACES 255

static bool is_taken(
	const struct value *records, const char *vm, const char *field, const char *place)
{
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value *record = records->record.members[i].value;
		if (strcmp(value_find_string(record, "VM", ""), vm) == 0 &&
			strcmp(value_find_string(record, field, ""), place) == 0)
			return true;
	}
	return false;
}

/* Asked anew each time: the caller may have just added one. */
static int choose_place(struct session *session, const char *class, const char *field,
	const char *vm, char **ret_place, struct fault *fault)
{
	char *method CLEANUP_FREE = xasprintf("%s.get_all_records", class);
	struct value *records CLEANUP_VALUE = NULL;
	int r = session_call(session, &records, fault, method, NULL);

	if (r < 0)
		return r;
	for (unsigned i = 0; records->type == VALUE_STRUCT && i <= MAX_PLACES; i++) {
		char *place CLEANUP_FREE = xasprintf("%u", i);
		if (is_taken(records, vm, field, place))
			continue;
		*ret_place = TAKE_PTR(place);
		return 0;
	}
	return cli_fail(fault, -ENOSPC, "the VM has no place for one more %s", class);
}

static int check_place(const char *text, char **ret_place, struct fault *fault)
{
	uint64_t place;

	if (parse_range(text, 0, MAX_PLACES, &place) < 0)
		return cli_usage(fault, "--device is \"%s\", but must be a number from 0 to %d",
			text, MAX_PLACES);
	*ret_place = xasprintf("%u", (unsigned)place);
	return 0;
}

static void set_qos(struct value *record)
{
	value_set(record, "other_config", value_new_struct());
	value_set_string(record, "qos_algorithm_type", "");
	value_set(record, "qos_algorithm_params", value_new_struct());
}

int device_attach_disk(struct session *session, const struct device_disk *disk,
	struct value **ret_ref, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = value_new_struct();
	char *place CLEANUP_FREE = NULL;
	int r = disk->place ? check_place(disk->place, &place, fault)
			    : choose_place(session, "VBD", "userdevice", disk->vm, &place, fault);

	if (r < 0)
		return r;
	value_set_string(record, "VM", disk->vm);
	value_set_string(record, "VDI", disk->vdi);
	value_set_string(record, "userdevice", place);
	value_set_bool(record, "bootable", disk->bootable);
	value_set_string(record, "mode", disk->mode);
	value_set_string(record, "type", "Disk");
	value_set_bool(record, "unpluggable", true);
	value_set_bool(record, "empty", false);
	set_qos(record);
	return session_call(session, ret_ref, fault, "VBD.create", TAKE_PTR(record), NULL);
}

int device_attach_card(struct session *session, const struct device_card *card,
	struct value **ret_ref, struct fault *fault)
{
	struct value *record CLEANUP_VALUE = value_new_struct();
	char *place CLEANUP_FREE = NULL;
	int r = card->place ? check_place(card->place, &place, fault)
			    : choose_place(session, "VIF", "device", card->vm, &place, fault);

	if (r < 0)
		return r;
	value_set_string(record, "VM", card->vm);
	value_set_string(record, "network", card->network);
	value_set_string(record, "device", place);
	value_set_string(record, "MAC", card->mac);
	value_set_int(record, "MTU", 1500);
	set_qos(record);
	return session_call(session, ret_ref, fault, "VIF.create", TAKE_PTR(record), NULL);
}
