/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the doctor share: doctor.c (looking twice, removing), doctor_storage.c,
 * doctor_processes.c, doctor_guests.c (QEMU and tgtd), doctor_rows.c (journal), doctor_pool.c (the
 * pool's database). */
#ifndef FERRY_AGENT_MIGRATE_DOCTOR_INTERNAL_H
#define FERRY_AGENT_MIGRATE_DOCTOR_INTERNAL_H

#include "agent/migrate/doctor.h"
#include "agent/migrate/supervisor_internal.h"

#define DOCTOR_COMMIT_DAYS 30

struct doctor {
	struct supervisor *supervisor;
	const struct supervisor_params *params;
	struct value *findings;
};

/* Adds one; the why is a printf format. Returns it, for the members that its removal needs. */
struct value *doctor_add(struct doctor *doctor, const char *kind, const char *what,
	const char *where, bool fixable, const char *why, ...)
	__attribute__((format(printf, 6, 7)));

/* Whether a migration of this host that is under way, or a disk's move, has that uuid. To be asked
 * after what belongs to it was seen. */
bool doctor_is_living(struct doctor *doctor, const char *owner);
/* Whether the VM with that uuid leaves this host just now, running. */
bool doctor_is_leaving(struct doctor *doctor, const char *vm_uuid);
/* Makes sure that the dead migration stays dead: -EBUSY when it lives after all. */
int doctor_bury(struct doctor *doctor, const char *owner, struct fault *fault);
/* The task runs. */
bool doctor_task_is_pending(struct doctor *doctor, const char *task);

void doctor_look_at_storage(struct doctor *doctor);
void doctor_look_at_run_dir(struct doctor *doctor);
void doctor_look_at_processes(struct doctor *doctor);
void doctor_look_at_guests(struct doctor *doctor);
void doctor_look_at_exports(struct doctor *doctor);
void doctor_look_at_journal(struct doctor *doctor);
/* On the coordinator, for the whole pool. */
void doctor_look_at_pool(struct doctor *doctor);

/* Each removes what a finding of its kind tells. */
int doctor_fix_process(struct doctor *doctor, const struct value *finding, struct fault *fault);
int doctor_fix_guest(struct doctor *doctor, const struct value *finding, struct fault *fault);
int doctor_fix_resource(struct doctor *doctor, const struct value *finding, struct fault *fault);
int doctor_fix_migration(struct doctor *doctor, const struct value *finding, struct fault *fault);
int doctor_fix_mark(struct doctor *doctor, const struct value *finding, struct fault *fault);
int doctor_fix_session(struct doctor *doctor, const struct value *finding, struct fault *fault);
int doctor_fix_commit(struct doctor *doctor, const struct value *finding, struct fault *fault);

#endif
