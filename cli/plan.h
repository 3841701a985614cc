/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration will do, made before it begins: which disk goes to which SR, which network card
 * to which network. It is shown as it will be executed. */
#ifndef FERRY_CLI_PLAN_H
#define FERRY_CLI_PLAN_H

#include "base/fault.h"
#include "base/value.h"
#include "cli/context.h"
#include "cli/object.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct plan_disk {
	struct object vdi;
	char *snapshot; /* whose disk it is: its name; NULL: the VM's own */
	char *userdevice;
	char *from; /* name of its SR */
	char *sr;   /* ref at the destination */
	char *to;   /* name of that */
};

struct plan_card {
	struct object vif;
	char *from;    /* name of its network */
	char *network; /* ref at the destination */
	char *to;      /* name of that */
};

struct plan {
	struct object vm;
	struct object host; /* at the destination */
	char *transfer_network;
	struct plan_disk *disks; /* in order of their places, the VM's own first */
	size_t n_disks;
	struct plan_card *cards; /* those of snapshots with an address that the VM has go with it */
	size_t n_cards;
	struct value *options;
	bool is_within; /* the pool: no --to */
};

#define PLAN_INIT                                                                                  \
	{                                                                                          \
		.vm = OBJECT_INIT                                                                  \
	}

/* From the options of `vm migrate`; context->session is the source, context->peer the destination.
 */
int plan_make(struct context *context, struct plan *plan, struct fault *fault);
void plan_clear(struct plan *plan);

/* The disks and cards of the VM's snapshots, which move with it. */
int plan_gather_snapshots(struct context *context, struct plan *plan, struct fault *fault);
/* Those of its disks that have no SR yet go where the disks go that they were taken of, as far as
 * these have one. */
void plan_follow_disks(struct plan *plan);
/* Of the object's record, as fields VBDs and VIFs name them. */
int plan_gather_disks(struct context *context, struct plan *plan, const struct object *vm,
	const char *snapshot, struct fault *fault);
int plan_gather_cards(
	struct context *context, struct plan *plan, const struct object *vm, struct fault *fault);

/* Its parts when the move is within the pool (no --to); context->peer is the same server then. */
int plan_pool_check(const struct args *args, struct fault *fault);
int plan_pool_choose_host(struct context *context, struct plan *plan, struct fault *fault);
/* Disks that have no SR yet, and that the host reaches, stay where they are. */
int plan_pool_keep_disks(struct context *context, struct plan *plan, struct fault *fault);
/* Where the others go: the pool's default SR if the host reaches that, else its roomiest. */
int plan_pool_default_sr(
	struct context *context, const struct plan *plan, char **ret_name, struct fault *fault);
void plan_pool_keep_cards(struct plan *plan);

/* The maps of VM.migrate_send. */
struct value *plan_vdi_map(const struct plan *plan);
struct value *plan_vif_map(const struct plan *plan);

/* The plan as text for a person, or as a JSON document. */
void plan_write(const struct context *context, const struct plan *plan, struct buf *out);
struct value *plan_to_json(const struct context *context, const struct plan *plan);

#define CLEANUP_PLAN CLEANUP(plan_clear)

#endif
