/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan.h"

#include "base/alloc.h"
#include "base/uuid.h"
#include "cli/errors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void plan_clear(struct plan *plan)
{
	for (size_t i = 0; i < plan->n_disks; i++) {
		object_clear(&plan->disks[i].vdi);
		free(plan->disks[i].snapshot);
		free(plan->disks[i].userdevice);
		free(plan->disks[i].from);
		free(plan->disks[i].sr);
		free(plan->disks[i].to);
	}
	for (size_t i = 0; i < plan->n_cards; i++) {
		object_clear(&plan->cards[i].vif);
		free(plan->cards[i].from);
		free(plan->cards[i].network);
		free(plan->cards[i].to);
	}
	free(plan->disks);
	free(plan->cards);
	free(plan->transfer_network);
	value_free(plan->options);
	object_clear(&plan->vm);
	object_clear(&plan->host);
	*plan = (struct plan)PLAN_INIT;
}

static char *name_of(struct session *session, const char *class, const char *ref)
{
	const struct value *records;

	if (session_records(session, class, &records, NULL) < 0)
		return xstrdup("?");
	const struct value *record = value_find(records, ref);
	const char *name = value_find_string(record, "name_label", "");
	return xstrdup(*name ? name : value_find_string(record, "uuid", "?"));
}

/* --- What the VM has ----------------------------------------------------------------------------
 */

static int compare_disks(const void *a, const void *b)
{
	const struct plan_disk *x = a;
	const struct plan_disk *y = b;
	long places[] = {strtol(x->userdevice, NULL, 10), strtol(y->userdevice, NULL, 10)};

	return (places[0] > places[1]) - (places[0] < places[1]);
}

int plan_gather_disks(struct context *context, struct plan *plan, const struct object *vm,
	const char *snapshot, struct fault *fault)
{
	const struct value *vbds = value_find(vm->record, "VBDs");
	size_t first = plan->n_disks;

	for (size_t i = 0; vbds && vbds->type == VALUE_ARRAY && i < vbds->array.n_items; i++) {
		struct object vbd CLEANUP_OBJECT = OBJECT_INIT;
		int r = object_load(context->session, "VBD", value_string(vbds->array.items[i], ""),
			&vbd, fault);
		if (r < 0)
			return r;
		if (strcmp(object_string(&vbd, "type"), "Disk") != 0 ||
			ref_is_null(object_string(&vbd, "VDI")))
			continue;
		plan->disks = xrealloc(plan->disks, plan->n_disks + 1, sizeof(*plan->disks));
		struct plan_disk *disk = &plan->disks[plan->n_disks++];
		*disk = (struct plan_disk){.snapshot = snapshot ? xstrdup(snapshot) : NULL,
			.userdevice = xstrdup(object_string(&vbd, "userdevice"))};
		r = object_load(
			context->session, "VDI", object_string(&vbd, "VDI"), &disk->vdi, fault);
		if (r < 0)
			return r;
		disk->from = name_of(context->session, "SR", object_string(&disk->vdi, "SR"));
	}
	if (plan->n_disks > first)
		qsort(plan->disks + first, plan->n_disks - first, sizeof(*plan->disks),
			compare_disks);
	return 0;
}

static bool has_address(const struct plan *plan, const char *address)
{
	for (size_t i = 0; i < plan->n_cards; i++)
		if (strcasecmp(object_string(&plan->cards[i].vif, "MAC"), address) == 0)
			return true;
	return false;
}

int plan_gather_cards(
	struct context *context, struct plan *plan, const struct object *vm, struct fault *fault)
{
	const struct value *vifs = value_find(vm->record, "VIFs");
	bool is_own = vm == &plan->vm;

	for (size_t i = 0; vifs && vifs->type == VALUE_ARRAY && i < vifs->array.n_items; i++) {
		struct object vif CLEANUP_OBJECT = OBJECT_INIT;
		int r = object_load(context->session, "VIF", value_string(vifs->array.items[i], ""),
			&vif, fault);
		if (r < 0)
			return r;
		if (!is_own && has_address(plan, object_string(&vif, "MAC")))
			continue;
		plan->cards = xrealloc(plan->cards, plan->n_cards + 1, sizeof(*plan->cards));
		struct plan_card *card = &plan->cards[plan->n_cards++];
		*card = (struct plan_card){.vif = vif};
		vif = (struct object)OBJECT_INIT;
		card->from =
			name_of(context->session, "network", object_string(&card->vif, "network"));
	}
	return 0;
}

/* --- The destination ----------------------------------------------------------------------------
 */

static int choose_host(struct context *context, struct plan *plan, struct fault *fault)
{
	const char *name = args_value(context->args, "host", NULL);
	const struct value *hosts;

	if (plan->is_within)
		return plan_pool_choose_host(context, plan, fault);
	if (name)
		return object_find(context->peer, "host", name, &plan->host, fault);
	int r = session_records(context->peer, "host", &hosts, fault);
	if (r < 0)
		return r;
	for (size_t i = 0; i < hosts->record.n_members; i++)
		if (value_find_bool(hosts->record.members[i].value, "enabled", false))
			return object_load(context->peer, "host", hosts->record.members[i].name,
				&plan->host, fault);
	return cli_fail(
		fault, -ENOENT, "the pool of %s has no enabled host", session_url(context->peer));
}

/* The network that the destination is managed on. The caller frees it. */
static int management_network(
	struct context *context, const char *host, char **ret_network, struct fault *fault)
{
	const struct value *pifs;
	int r = session_records(context->peer, "PIF", &pifs, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < pifs->record.n_members; i++) {
		const struct value *pif = pifs->record.members[i].value;
		if (strcmp(value_find_string(pif, "host", ""), host) != 0 ||
			!value_find_bool(pif, "management", false))
			continue;
		*ret_network = xstrdup(value_find_string(pif, "network", REF_NULL));
		return 0;
	}
	return cli_fail(fault, -ENOENT,
		"the destination host has no management interface: name the "
		"network to use with --transfer-network");
}

static int choose_transfer_network(struct context *context, struct plan *plan, struct fault *fault)
{
	const char *name = args_value(context->args, "transfer-network", NULL);
	struct object network CLEANUP_OBJECT = OBJECT_INIT;

	if (!name)
		return management_network(context, plan->host.ref, &plan->transfer_network, fault);
	int r = object_find(context->peer, "network", name, &network, fault);
	if (r == 0)
		plan->transfer_network = TAKE_PTR(network.ref);
	return r;
}

/* --- Disks --------------------------------------------------------------------------------------
 */

static bool is_called(const struct object *object, const char *name)
{
	return strcmp(object->ref, name) == 0 || strcmp(object_string(object, "uuid"), name) == 0 ||
	       strcmp(object_string(object, "name_label"), name) == 0;
}

/* That of a snapshot has the name of the disk that it was taken of. */
static bool is_disk_called(const struct plan_disk *disk, const char *name)
{
	return disk->snapshot ? strcmp(object_string(&disk->vdi, "uuid"), name) == 0
			      : is_called(&disk->vdi, name);
}

static int set_sr(
	struct context *context, struct plan_disk *disk, const char *name, struct fault *fault)
{
	struct object sr CLEANUP_OBJECT = OBJECT_INIT;
	int r = object_find(context->peer, "SR", name, &sr, fault);

	if (r < 0)
		return r;
	disk->to = xstrdup(object_string(&sr, "name_label"));
	disk->sr = TAKE_PTR(sr.ref);
	return 0;
}

static int apply_map(
	struct context *context, struct plan *plan, const char *text, struct fault *fault)
{
	char *name CLEANUP_FREE = NULL;
	char *sr CLEANUP_FREE = NULL;
	struct plan_disk *found = NULL;
	int r = args_split(text, "map", &name, &sr, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < plan->n_disks; i++) {
		if (!is_disk_called(&plan->disks[i], name))
			continue;
		if (found)
			return cli_usage(fault,
				"two disks of the VM are called \"%s\": name one by "
				"its uuid",
				name);
		found = &plan->disks[i];
	}
	if (!found)
		return cli_usage(fault, "the VM has no disk \"%s\"", name);
	if (found->sr)
		return cli_usage(fault, "--map names disk \"%s\" twice", name);
	return set_sr(context, found, sr, fault);
}

/* For disks that --map does not name: --sr, or the default of the pool. */
static int default_sr(
	struct context *context, const struct plan *plan, char **ret_name, struct fault *fault)
{
	const char *name = args_value(context->args, "sr", NULL);
	const struct value *pools;

	if (name) {
		*ret_name = xstrdup(name);
		return 0;
	}
	if (plan->is_within)
		return plan_pool_default_sr(context, plan, ret_name, fault);
	int r = session_records(context->peer, "pool", &pools, fault);
	if (r < 0)
		return r;
	const char *sr = pools->record.n_members ? value_find_string(pools->record.members[0].value,
							   "default_SR", REF_NULL)
						 : REF_NULL;
	if (ref_is_null(sr))
		return cli_fail(fault, -ENOENT,
			"the pool of %s has no default SR: give --sr SR or --map VDI=SR",
			session_url(context->peer));
	*ret_name = xstrdup(sr);
	return 0;
}

static int map_disks(struct context *context, struct plan *plan, struct fault *fault)
{
	char *fallback CLEANUP_FREE = NULL;
	const char *text;

	for (size_t at = 0; (text = args_next(context->args, "map", &at));) {
		int r = apply_map(context, plan, text, fault);
		if (r < 0)
			return r;
	}
	if (plan->is_within) {
		int r = plan_pool_keep_disks(context, plan, fault);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < plan->n_disks; i++) {
		if (plan->disks[i].snapshot)
			plan_follow_disks(plan);
		if (plan->disks[i].sr)
			continue;
		int r = fallback ? 0 : default_sr(context, plan, &fallback, fault);
		if (r == 0)
			r = set_sr(context, &plan->disks[i], fallback, fault);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- Network cards ------------------------------------------------------------------------------
 */

static int set_network(
	struct context *context, struct plan_card *card, const char *name, struct fault *fault)
{
	struct object network CLEANUP_OBJECT = OBJECT_INIT;
	int r = object_find(context->peer, "network", name, &network, fault);

	if (r < 0)
		return r;
	card->to = xstrdup(object_string(&network, "name_label"));
	card->network = TAKE_PTR(network.ref);
	return 0;
}

static int apply_vif_map(
	struct context *context, struct plan *plan, const char *text, struct fault *fault)
{
	char *name CLEANUP_FREE = NULL;
	char *network CLEANUP_FREE = NULL;
	int r = args_split(text, "vif-map", &name, &network, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < plan->n_cards; i++) {
		struct plan_card *card = &plan->cards[i];
		if (!is_called(&card->vif, name) &&
			strcasecmp(object_string(&card->vif, "MAC"), name) != 0 &&
			strcmp(object_string(&card->vif, "device"), name) != 0)
			continue;
		if (card->network)
			return cli_usage(fault, "--vif-map names card \"%s\" twice", name);
		return set_network(context, card, network, fault);
	}
	return cli_usage(fault,
		"the VM has no network card \"%s\": name it by uuid, MAC address or "
		"device number",
		name);
}

/* The one network of that name, or NULL. */
static const char *network_called(const struct value *networks, const char *name)
{
	const char *found = NULL;

	for (size_t i = 0; i < networks->record.n_members; i++) {
		const struct value_member *member = &networks->record.members[i];
		if (strcmp(value_find_string(member->value, "name_label", ""), name) != 0)
			continue;
		if (found)
			return NULL;
		found = member->name;
	}
	return found;
}

static int choose_network(
	struct context *context, struct plan *plan, struct plan_card *card, struct fault *fault)
{
	const char *name = args_value(context->args, "network", NULL);
	const struct value *networks;
	char *management CLEANUP_FREE = NULL;

	if (name)
		return set_network(context, card, name, fault);
	int r = session_records(context->peer, "network", &networks, fault);
	if (r < 0)
		return r;
	const char *same = network_called(networks, card->from);
	if (same)
		return set_network(context, card, same, fault);
	r = management_network(context, plan->host.ref, &management, fault);
	if (r == 0)
		r = set_network(context, card, management, fault);
	if (r == 0)
		context_note(context,
			"card %s: the destination has no network \"%s\"; it will be "
			"on \"%s\"",
			object_string(&card->vif, "device"), card->from, card->to);
	return r;
}

static int map_cards(struct context *context, struct plan *plan, struct fault *fault)
{
	const char *text;

	if (plan->is_within)
		plan_pool_keep_cards(plan);
	for (size_t at = 0; (text = args_next(context->args, "vif-map", &at));) {
		int r = apply_vif_map(context, plan, text, fault);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < plan->n_cards; i++) {
		if (plan->cards[i].network)
			continue;
		int r = choose_network(context, plan, &plan->cards[i], fault);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_options(const struct args *args, struct plan *plan, struct fault *fault)
{
	const char *text;

	plan->options = value_new_struct();
	if (args_has(args, "copy"))
		value_set_string(plan->options, "copy", "true");
	if (args_has(args, "on-read-error"))
		value_set_string(
			plan->options, "on_read_error", args_value(args, "on-read-error", "fail"));
	for (size_t at = 0; (text = args_next(args, "option", &at));) {
		char *key CLEANUP_FREE = NULL;
		char *value CLEANUP_FREE = NULL;
		int r = args_split(text, "option", &key, &value, fault);
		if (r < 0)
			return r;
		value_set_string(plan->options, key, value);
	}
	return 0;
}

int plan_make(struct context *context, struct plan *plan, struct fault *fault)
{
	int r = read_options(context->args, plan, fault);

	plan->is_within = !args_has(context->args, "to");
	if (r == 0)
		r = object_find(
			context->session, "VM", args_operand(context->args, 0), &plan->vm, fault);
	if (r == 0)
		r = plan_gather_disks(context, plan, &plan->vm, NULL, fault);
	if (r == 0)
		r = plan_gather_cards(context, plan, &plan->vm, fault);
	if (r == 0)
		r = plan_gather_snapshots(context, plan, fault);
	if (r == 0)
		r = choose_host(context, plan, fault);
	if (r == 0)
		r = choose_transfer_network(context, plan, fault);
	if (r == 0)
		r = map_disks(context, plan, fault);
	if (r == 0)
		r = map_cards(context, plan, fault);
	return r;
}

struct value *plan_vdi_map(const struct plan *plan)
{
	struct value *map = value_new_struct();

	for (size_t i = 0; i < plan->n_disks; i++)
		value_set_string(map, plan->disks[i].vdi.ref, plan->disks[i].sr);
	return map;
}

struct value *plan_vif_map(const struct plan *plan)
{
	struct value *map = value_new_struct();

	for (size_t i = 0; i < plan->n_cards; i++)
		value_set_string(map, plan->cards[i].vif.ref, plan->cards[i].network);
	return map;
}
