/* SPDX-License-Identifier: Apache-2.0 */
/* What copies.c (the copy), copies_guest.c (beside a guest that runs), copies_pause.c (the moment
 * in which that stands still), copies_commit.c (what it makes) and copies_settle.c (its end) share.
 */
#ifndef FERRY_AGENT_MIGRATE_COPIES_INTERNAL_H
#define FERRY_AGENT_MIGRATE_COPIES_INTERNAL_H

#include "agent/copy/file_copy.h"
#include "agent/copy/rate.h"
#include "agent/guest/dirty.h"
#include "agent/guest/guest_node.h"
#include "agent/guest/image_export.h"
#include "agent/guest/watchdog.h"
#include "agent/migrate/copies.h"
#include "agent/migrate/served_image.h"
#include "agent/storage/move.h"

#define COPIES_KIND     "copy"   /* of resources; the name is the owner's */
#define COPIES_MARK     "copy"   /* of a VDI that is read */
#define COPIES_REPLACED "update" /* of one that is to have another's content */

/* A disk to which a guest may write while it is copied. */
struct copies_disk {
	struct guest_node node; /* its name NULL: it does not */
	size_t number;          /* in the tracking */
	/* Of an image that is not raw: how it is read, and the new one written. */
	struct image_export *source;
	struct served_image *target;
	struct file_copy *copy;
	struct extent *last; /* what was read while the guest was stopped */
	size_t n_last;
};

struct copies {
	const struct supervisor_params *params;
	char *uuid;      /* owner of its resources */
	char *key;       /* of the marks: the task */
	char *operation; /* of the VM */
	char *vm;        /* that is copied; "": a disk alone */
	char *reverted;  /* the VM that a revert is for; "": none */
	/* Refs. Of the second there are as many, or none: null where no VDI is to be replaced. */
	struct value *vdis;
	struct value *replaced;
	char *guest; /* VM whose guest has the disks; "": none */
	bool stops;  /* it is, or is about to be, stopped by the copy */
	/* Of a copy that runs. */
	const struct copies_request *request;
	struct storage_move *files; /* one of each of vdis */
	size_t n_files;
	struct rate_limit *rate;
	uint64_t all_bytes;
	uint64_t copied_bytes;
	struct resident *resident;
	struct copies_disk *disks; /* one of each of vdis; NULL: no guest runs */
	size_t n_tracked;          /* of them that a guest writes to */
	struct dirty *dirty;
	struct watchdog *watchdog; /* while the guest is stopped */
	int64_t instant_sec;       /* of what the copy holds; 0: of its end */
	char *made;                /* result */
};

static inline const char *copies_vdi(const struct copies *copies, size_t i)
{
	return value_string(copies->vdis->array.items[i], "");
}

/* REF_NULL: none. */
const char *copies_replaced(const struct copies *copies, size_t i);

/* All that the copy makes, in one transaction, from the files that are there; sets made. */
int copies_commit(struct copies *copies, struct fault *fault);

/* The VM whose guest has what is to be kept: REF_NULL when none runs, or it is no snapshot. */
int copies_find_guest(
	struct pool_db *pool, const struct copies *copies, char **ret_guest, struct fault *fault);
/* Holds the guest, and starts to track what it writes: before anything is read. */
int copies_guest_begin(struct copies *copies, struct fault *fault);
/* Whether it may write to that disk. */
bool copies_guest_writes(const struct copies *copies, size_t i);
/* Opens the copy of one that it may write to. *params is complete but for how an image that is not
 * raw is reached. */
int copies_guest_open(
	struct copies *copies, size_t i, struct file_copy_params *params, struct fault *fault);
/* There was one, and it has ended. */
bool copies_guest_has_ended(const struct copies *copies);
/* The same, of a copy that failed: a connection that breaks tells of the end a little before it. */
bool copies_guest_has_ended_by(const struct copies *copies, int error);
/* After the first pass over all disks, which are open: what was written meanwhile, until the copies
 * are what the disks were at one moment. */
int copies_guest_finish(struct copies *copies, struct fault *fault);
/* All that was opened; the copies are on the disk. */
void copies_guest_close(struct copies *copies);
/* The guest runs, if it did, and has nothing of the copy. */
int copies_guest_settle(const struct copies *copies, struct fault *fault);
void copies_guest_clear(struct copies *copies);

/* The guest stands still, if it ran, while the rest of its disks is read into memory. -ETIMEDOUT:
 * that took too long; it runs again, and all is as before. What fails meanwhile is settled. */
int copies_pause(struct copies *copies, struct fault *fault);

int copies_store(const struct copies *copies, struct fault *fault);
/* Makes files, marks and row agree with the VDIs. */
int copies_settle(struct copies *copies, struct fault *fault);
void copies_clear(struct copies *copies);

#define CLEANUP_COPIES CLEANUP(copies_clear)

#endif
