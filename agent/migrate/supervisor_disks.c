/* SPDX-License-Identifier: Apache-2.0 */
/* What is done with disks of this host, and is no migration to another. */
#include "agent/migrate/copies.h"
#include "agent/migrate/supervisor_internal.h"
#include "agent/migrate/vdi_move.h"

int supervisor_move_vdi(struct supervisor *supervisor, const char *vdi, const char *sr,
	const char *task, struct cancel *cancel, struct fault *fault)
{
	const struct vdi_move_request request = {
		.vdi = vdi, .sr = sr, .task = task, .cancel = cancel, .stop = supervisor->stop};

	return vdi_move_run(supervisor->params, &request, fault);
}

int supervisor_copy(struct supervisor *supervisor, struct copies_request *request, char **ret_ref,
	struct fault *fault)
{
	request->stop = supervisor->stop;
	return copies_run(supervisor->params, request, ret_ref, fault);
}
