/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/space.h"

#include "agent/migrate/peer.h"
#include "agent/migrate/resume.h"
#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* While more is free, somebody may make room yet: about what a fast link brings between two
 * heartbeats. */
#define RESERVE_BYTES (INT64_C(512) << 20)

/* What the disk may still take at the destination. */
static int64_t left_of(const struct migration_disk *disk, const struct value *plan)
{
	int64_t allocated = value_find_int(plan, "allocated", 0);
	int64_t done = (int64_t)(disk->done_before + disk->copy.same + disk->copy.read);

	return disk->ended_usec ? 0 : MAX(allocated - done, 0);
}

static int64_t left_in(struct migration *m, const struct value *disks, const char *sr)
{
	int64_t left = 0;

	for (size_t i = 0; i < m->n_disks; i++)
		if (strcmp(value_find_string(disks->array.items[i], "sr", ""), sr) == 0)
			left += left_of(&m->disks[i], disks->array.items[i]);
	return left;
}

static int refuse(size_t disk, int64_t available, int64_t left, struct fault *fault)
{
	char *text CLEANUP_FREE =
		xasprintf("copy: disk %zu: the destination SR is running full: %" PRId64
			  " bytes of space are free there and %" PRId64
			  " are left to be sent to it; the VM is as it was on the source; free "
			  "space at the destination and migrate again",
			disk, available, left);

	return fault_set(fault, -ENOSPC, "SR_BACKEND_FAILURE_44", "", text, "", NULL);
}

int space_check(struct migration *m, const struct value *status, struct fault *fault)
{
	const struct value *space = value_find(status, "free");
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");

	/* Then the destination holds much of what is to be compared. */
	if (!space || space->type != VALUE_ARRAY || resume_is_distrusted(m))
		return 0;
	for (size_t i = 0; i < m->n_disks && i < space->array.n_items; i++) {
		int64_t available = peer_int(space->array.items[i], "bytes", -1);
		const char *sr = value_find_string(disks->array.items[i], "sr", "");
		int64_t left = left_in(m, disks, sr);
		if (available >= 0 && available < left && available < RESERVE_BYTES)
			return refuse(i, available, left, fault);
	}
	return 0;
}
