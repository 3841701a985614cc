/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/safeguard.h"

#include "agent/migrate/report.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define AGAIN_USEC (5 * USEC_PER_SEC)

bool safeguard_is_exposed(struct migration *m)
{
	SCOPE_LOCK(&m->lock);
	return *value_find_string(m->document, "exposed", "") != 0;
}

/* why: "" when it is not exposed. */
static void note(struct migration *m, const char *why)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (safeguard_is_exposed(m) == (*why != 0))
		return;
	if (*why)
		log_warn("MIG-EXPOSED",
			"migration=%s role=%s error=\"%s\": what it changed is in the "
			"coordinator's database alone until another host has a copy",
			m->uuid, migration_role_name(m->role), why);
	else
		log_info("MIG-NOT-EXPOSED", "migration=%s role=%s: another host has a copy",
			m->uuid, migration_role_name(m->role));
	migration_set(m, "exposed", value_new_string(why));
	if (migration_save(m, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("MIG-STORE", "migration=%s error=%s", m->uuid, text);
	}
	report_attention(m);
}

int safeguard_run(struct migration *m, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	const struct supervisor_params *params = m->params;
	uint64_t begun = clock_now_usec();
	int r = params->secure ? params->secure(params->secure_arg, m->stop, &why) : 0;

	m->secured_usec = clock_now_usec();
	log_debug("MIG-SECURED", "migration=%s result=%d msec=%.1f", m->uuid, r,
		(double)(m->secured_usec - begun) / (double)USEC_PER_MSEC);
	if (r == -ESTALE || r == -ECANCELED) {
		fault_move(fault, &why);
		return r;
	}
	char *text CLEANUP_FREE = r < 0 ? fault_describe(&why) : xstrdup("");
	note(m, text);
	return 0;
}

void safeguard_try_again(struct migration *m)
{
	if (safeguard_is_exposed(m) && clock_now_usec() - m->secured_usec > AGAIN_USEC)
		safeguard_run(m, NULL);
}
