/* SPDX-License-Identifier: Apache-2.0 */
/* What copies.c (the copy), copies_commit.c (what it makes) and copies_settle.c (its end) share. */
#ifndef FERRY_AGENT_MIGRATE_COPIES_INTERNAL_H
#define FERRY_AGENT_MIGRATE_COPIES_INTERNAL_H

#include "agent/copy/rate.h"
#include "agent/migrate/copies.h"
#include "agent/storage/move.h"

#define COPIES_KIND     "copy"   /* of resources; the name is the owner's */
#define COPIES_MARK     "copy"   /* of a VDI that is read */
#define COPIES_REPLACED "update" /* of one that is to have another's content */

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
	/* Of a copy that runs. */
	const struct copies_request *request;
	struct storage_move *files; /* one of each of vdis */
	size_t n_files;
	struct rate_limit *rate;
	uint64_t all_bytes;
	uint64_t copied_bytes;
	char *made; /* result */
};

static inline const char *copies_vdi(const struct copies *copies, size_t i)
{
	return value_string(copies->vdis->array.items[i], "");
}

/* REF_NULL: none. */
const char *copies_replaced(const struct copies *copies, size_t i);

/* All that the copy makes, in one transaction, from the files that are there; sets made. */
int copies_commit(struct copies *copies, struct fault *fault);

int copies_store(const struct copies *copies, struct fault *fault);
/* Makes files, marks and row agree with the VDIs. */
int copies_settle(struct copies *copies, struct fault *fault);
void copies_clear(struct copies *copies);

#define CLEANUP_COPIES CLEANUP(copies_clear)

#endif
