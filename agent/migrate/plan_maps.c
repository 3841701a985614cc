/* SPDX-License-Identifier: Apache-2.0 */
/* Where the disks and the network cards of a VM's snapshots go that the maps do not name. */
#include "agent/migrate/plan.h"

#include "agent/vm/family.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <strings.h>

/* The disk of which it is a snapshot says it. */
static int follow_disk(
	struct pool_db *pool, const char *vdi, struct value *vdi_map, struct fault *fault)
{
	char *of CLEANUP_FREE = NULL;
	int r = value_find(vdi_map, vdi)
			? 0
			: object_get_string(pool, "VDI", vdi, "snapshot_of", &of, fault);
	const char *sr = of ? value_find_string(vdi_map, of, NULL) : NULL;

	if (r == 0 && sr) {
		char *same CLEANUP_FREE = xstrdup(sr);
		value_set_string(vdi_map, vdi, same);
	}
	return r;
}

int plan_follow_disks(
	struct pool_db *pool, const char *snapshot, struct value *vdi_map, struct fault *fault)
{
	struct value *vdis CLEANUP_VALUE = value_new_array();
	int r = vm_add_snapshot_disks(pool, snapshot, vdis, fault);

	for (size_t i = 0; r == 0 && i < vdis->array.n_items; i++)
		r = follow_disk(pool, vdis->array.items[i]->string, vdi_map, fault);
	return r;
}

/* Refs of the VM's cards, with the MAC address of each: struct of ref -> address. */
static int list_cards(
	struct pool_db *pool, const char *vm, struct value *ret_cards, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VIF", "VM", vm, &refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		char *mac CLEANUP_FREE = NULL;
		r = object_get_string(pool, "VIF", ref, "MAC", &mac, fault);
		if (r == 0)
			value_set_string(ret_cards, ref, mac);
	}
	return r;
}

/* A card is known by its address. */
static void follow_card(
	const struct value *own, const char *ref, const char *mac, struct value *vif_map)
{
	for (size_t i = 0; !value_find(vif_map, ref) && i < own->record.n_members; i++) {
		const struct value_member *card = &own->record.members[i];
		const char *network = value_find_string(vif_map, card->name, NULL);
		if (!network || strcasecmp(value_string(card->value, ""), mac) != 0)
			continue;
		char *same CLEANUP_FREE = xstrdup(network);
		value_set_string(vif_map, ref, same);
	}
}

int plan_complete_maps(struct pool_db *pool, const char *vm, struct value *vdi_map,
	struct value *vif_map, struct fault *fault)
{
	struct value *snapshots CLEANUP_VALUE = NULL;
	struct value *own CLEANUP_VALUE = value_new_struct();
	int r = vm_list_snapshots(pool, vm, &snapshots, fault);

	if (r == 0)
		r = list_cards(pool, vm, own, fault);
	for (size_t i = 0; r == 0 && i < snapshots->array.n_items; i++) {
		const char *snapshot = snapshots->array.items[i]->string;
		struct value *cards CLEANUP_VALUE = value_new_struct();
		r = plan_follow_disks(pool, snapshot, vdi_map, fault);
		if (r == 0)
			r = list_cards(pool, snapshot, cards, fault);
		for (size_t c = 0; c < cards->record.n_members; c++)
			follow_card(own, cards->record.members[c].name,
				value_string(cards->record.members[c].value, ""), vif_map);
	}
	return r;
}
