/* SPDX-License-Identifier: Apache-2.0 */
/* The QEMU that a running guest moves into: started here, filled through a door of the tunnel. It
 * runs only when the commit has told it to, and until then belongs to the migration. */
#include "agent/guest/memory.h"
#include "agent/migrate/live.h"
#include "agent/migrate/receiver_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>

#define SECRET_LENGTH 32
/* The sender asks for the commit when its side is done, which is milliseconds before this one. */
#define MEMORY_USEC (10 * USEC_PER_SEC)

/* --- Beginning ----------------------------------------------------------------------------------
 */

/* The guest is what the import makes of the manifest, on the disks that were exported. */
static int start_guest(struct migration *m, struct resident **ret_resident, struct fault *fault)
{
	struct value *manifest CLEANUP_VALUE = migration_get(m, "manifest");
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	struct guest_spec spec CLEANUP_GUEST_SPEC = GUEST_SPEC_INIT;
	int r = receiver_try_guest(m->params, manifest, disks, true, &spec, fault);

	return r < 0 ? r
		     : guests_start_incoming(
			       m->params->guests, m->uuid, &spec, m->cancel, ret_resident, fault);
}

static int open_door(
	struct migration *m, const char *socket, struct value **ret_result, struct fault *fault)
{
	char *door CLEANUP_FREE = xasprintf("%s/%s", m->uuid, GUEST_MEMORY);
	char *secret CLEANUP_FREE = secret_new(SECRET_LENGTH);
	int r = tunnel_open_door(m->params->tunnel,
		&(struct tunnel_door){.name = door, .secret = secret, .socket_path = socket},
		fault);

	if (r < 0)
		return r;
	struct value *result = value_new_struct();
	value_set_int(result, "port", tunnel_port(m->params->tunnel));
	value_set_string(result, "address", m->params->data_address);
	value_set_string(result, "door", door);
	value_set_string(result, "secret", secret);
	m->door = TAKE_PTR(door);
	*ret_result = result;
	return 0;
}

static int begin(struct migration *m, struct value **ret_result, struct fault *fault)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;
	int r = start_guest(m, &resident, fault);

	if (r < 0)
		return r;
	char *socket CLEANUP_FREE = guest_file(resident_run_dir(resident), GUEST_MEMORY);
	char *uri CLEANUP_FREE = xasprintf("unix:%s", socket);
	r = memory_listen(resident_guest(resident), uri, fault);
	return r < 0 ? r : open_door(m, socket, ret_result, fault);
}

int receiver_incoming(struct migration *m, struct value **ret_result, struct fault *fault)
{
	if (!live_is_wanted(m))
		return fault_text(fault, -EINVAL,
			"migration %s moves a VM that is halted: it has no memory to take",
			m->uuid);
	if (migration_state(m) != STATE_RECEIVING)
		return receiver_refuse(m, "incoming", fault);
	if (!m->params->tunnel)
		return fault_text(
			fault, -EOPNOTSUPP, "this agent has no data port for a guest's memory");
	/* One that has taken part of a stream is of no use for another. */
	int r = receiver_end_incoming(m, fault);
	if (r == 0)
		r = receiver_settle_still(m, fault);
	if (r == 0)
		r = begin(m, ret_result, fault);
	if (r < 0)
		receiver_end_incoming(m, NULL);
	return r;
}

/* --- Looking ------------------------------------------------------------------------------------
 */

void receiver_incoming_status(struct migration *m, struct value *result)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;
	char *end CLEANUP_FREE = NULL;
	const char *status = "none";

	if (!live_is_wanted(m))
		return;
	resident = guests_find_incoming(m->params->guests, m->uuid);
	if (resident)
		status = resident_has_memory(resident) ? "complete" : "waiting";
	else if ((end = guests_incoming_end(m->params->guests, m->uuid)) ||
		 migration_state(m) == STATE_SEALED)
		status = "dead";
	value_set_string(result, "incoming", status);
	if (end)
		value_set_string(result, "incoming_end", end);
}

static int refuse_dead(struct migration *m, struct fault *fault)
{
	char *end CLEANUP_FREE = guests_incoming_end(m->params->guests, m->uuid);

	return fault_text(fault, -ESRCH,
		"commit: the QEMU that took the guest's memory at the destination has ended: %s",
		end ? end : "when, is not known");
}

int receiver_await_memory(struct migration *m, struct fault *fault)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT =
		guests_find_incoming(m->params->guests, m->uuid);
	int r = -ESRCH;

	if (resident)
		r = resident_await_memory(resident, clock_deadline(MEMORY_USEC), m->cancel, fault);
	return r == -ESRCH ? refuse_dead(m, fault) : r;
}

/* --- Ending -------------------------------------------------------------------------------------
 */

void receiver_close_door(struct migration *m)
{
	if (m->door)
		tunnel_close_door(m->params->tunnel, m->door);
	free(m->door);
	m->door = NULL;
}

int receiver_end_incoming(struct migration *m, struct fault *fault)
{
	if (!live_is_wanted(m))
		return 0;
	int r = guests_end_incoming(m->params->guests, m->uuid, fault);
	receiver_close_door(m);
	return r;
}

bool receiver_may_run(struct migration *m)
{
	struct resident *resident CLEANUP_GUESTS_RESIDENT = NULL;

	if (live_is_wanted(m))
		resident = guests_find_incoming(m->params->guests, m->uuid);
	return resident;
}

int receiver_recover_incoming(struct migration *m, struct fault *fault)
{
	enum migration_state state = migration_state(m);

	if (state != STATE_ALLOCATING && state != STATE_RECEIVING)
		return 0;
	return receiver_end_incoming(m, fault);
}

void receiver_suspend(struct migration *m)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (receiver_end_incoming(m, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("MIG-QEMU", "migration=%s error=\"%s\"", m->uuid, text);
	}
	receiver_withdraw(m, NULL);
}
