/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a move to another host of the same pool: disks that the host reaches stay where they
 * are, and so do all cards. */
#include "cli/plan.h"

#include "base/alloc.h"
#include "base/uuid.h"
#include "cli/errors.h"
#include "cli/record.h"

#include <errno.h>
#include <string.h>

/* --- What may be asked for ----------------------------------------------------------------------
 */

int plan_pool_check(const struct args *args, struct fault *fault)
{
	static const char *const foreign[] = {"copy", "network", "vif-map", "transfer-network"};

	if (!args_has(args, "host"))
		return cli_usage(fault, "--to SERVER or --host HOST is missing: another pool, or "
					"another host of this one");
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		if (args_has(args, foreign[i]))
			return cli_usage(fault,
				"--%s is for a move to another pool, with --to SERVER; a move "
				"within "
				"the pool takes --sr, --map, --option, --dry-run and --no-wait",
				foreign[i]);
	return 0;
}

/* --- The host -----------------------------------------------------------------------------------
 */

static bool is_live(const struct value *metrics, const struct value *host)
{
	const struct value *record = value_find(metrics, value_find_string(host, "metrics", ""));

	return value_find_bool(record, "live", false);
}

/* Names of the hosts that the VM could go to. */
static char *list_hosts(const struct value *hosts, const struct value *metrics, const char *except)
{
	struct buf names CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < hosts->record.n_members; i++) {
		const struct value_member *host = &hosts->record.members[i];
		if (strcmp(host->name, except) == 0 || !is_live(metrics, host->value) ||
			!value_find_bool(host->value, "enabled", false))
			continue;
		buf_printf(&names, "%s%s", names.length ? ", " : "",
			value_find_string(host->value, "name_label", ""));
	}
	return names.length ? buf_take_string(&names) : xstrdup("none");
}

int plan_pool_choose_host(struct context *context, struct plan *plan, struct fault *fault)
{
	const char *name = args_value(context->args, "host", "");
	const char *resident = object_string(&plan->vm, "resident_on");
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	const struct value *hosts;
	const struct value *metrics;
	int r = session_records(context->peer, "host", &hosts, fault);

	if (r == 0)
		r = session_records(context->peer, "host_metrics", &metrics, fault);
	if (r < 0)
		return r;
	char *possible CLEANUP_FREE = list_hosts(hosts, metrics, resident);
	r = object_find(context->peer, "host", name, &plan->host, &why);
	if (r == -ENOENT || fault_is(&why, "UUID_INVALID") || fault_is(&why, "HANDLE_INVALID"))
		return cli_fail(fault, r,
			"the pool has no host \"%s\"; hosts that the VM could go to: %s", name,
			possible);
	if (r < 0) {
		fault_move(fault, &why);
		return r;
	}
	if (strcmp(plan->host.ref, resident) == 0)
		return cli_fail(fault, -EINVAL,
			"the VM runs on host \"%s\" already; others that it could go to: %s", name,
			possible);
	if (!is_live(metrics, plan->host.record))
		return cli_fail(fault, -EHOSTDOWN,
			"host \"%s\" is not live; hosts that the VM could go to: %s", name,
			possible);
	if (!value_find_bool(plan->host.record, "enabled", false))
		return cli_fail(fault, -EPERM,
			"host \"%s\" is disabled; hosts that the VM could go to: %s", name,
			possible);
	return 0;
}

/* --- Disks and cards ----------------------------------------------------------------------------
 */

static bool is_reached(const struct value *pbds, const char *sr, const char *host)
{
	for (size_t i = 0; i < pbds->record.n_members; i++) {
		const struct value *pbd = pbds->record.members[i].value;
		if (strcmp(value_find_string(pbd, "SR", ""), sr) == 0 &&
			strcmp(value_find_string(pbd, "host", ""), host) == 0 &&
			value_find_bool(pbd, "currently_attached", false))
			return true;
	}
	return false;
}

int plan_pool_keep_disks(struct context *context, struct plan *plan, struct fault *fault)
{
	const struct value *pbds;
	int r = session_records(context->peer, "PBD", &pbds, fault);

	for (size_t i = 0; r == 0 && i < plan->n_disks; i++) {
		struct plan_disk *disk = &plan->disks[i];
		const char *sr = object_string(&disk->vdi, "SR");
		if (disk->sr || !is_reached(pbds, sr, plan->host.ref))
			continue;
		disk->sr = xstrdup(sr);
		disk->to = xstrdup(disk->from);
	}
	return r;
}

int plan_pool_default_sr(
	struct context *context, const struct plan *plan, char **ret_name, struct fault *fault)
{
	const struct value *pbds, *srs, *pools;
	const char *best = NULL;
	int64_t most = -1;
	int r = session_records(context->peer, "PBD", &pbds, fault);

	if (r == 0)
		r = session_records(context->peer, "SR", &srs, fault);
	if (r == 0)
		r = session_records(context->peer, "pool", &pools, fault);
	if (r < 0)
		return r;
	const struct value *pool = pools->record.n_members ? pools->record.members[0].value : NULL;
	const char *preferred = value_find_string(pool, "default_SR", REF_NULL);
	if (is_reached(pbds, preferred, plan->host.ref))
		best = preferred;
	for (size_t i = 0; best != preferred && i < srs->record.n_members; i++) {
		const struct value_member *sr = &srs->record.members[i];
		int64_t bytes = record_int(sr->value, "physical_size", 0) -
				record_int(sr->value, "physical_utilisation", 0);
		if (bytes <= most || !is_reached(pbds, sr->name, plan->host.ref))
			continue;
		most = bytes;
		best = sr->name;
	}
	if (!best)
		return cli_fail(fault, -ENOENT,
			"host \"%s\" reaches no SR that the VM's disks could go to: attach one "
			"(`ferry sr attach`), or make one (`ferry sr create`)",
			object_string(&plan->host, "name_label"));
	*ret_name = xstrdup(best);
	return 0;
}

void plan_pool_keep_cards(struct plan *plan)
{
	for (size_t i = 0; i < plan->n_cards; i++) {
		plan->cards[i].network = xstrdup(object_string(&plan->cards[i].vif, "network"));
		plan->cards[i].to = xstrdup(plan->cards[i].from);
	}
}
