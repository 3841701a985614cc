/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan.h"

#include "base/alloc.h"
#include "cli/output.h"
#include "cli/record.h"

static bool has_snapshots(const struct plan *plan)
{
	return plan->n_disks && plan->disks[plan->n_disks - 1].snapshot;
}

static void write_disks(const struct plan *plan, struct buf *out)
{
	struct table *table CLEANUP_TABLE = table_new();
	bool tells_snapshot = has_snapshots(plan);

	if (tells_snapshot)
		table_add_column(table, "SNAPSHOT", TABLE_LEFT);
	table_add_column(table, "DISK", TABLE_LEFT);
	table_add_column(table, "NAME", TABLE_LEFT);
	table_add_column(table, "FROM-SR", TABLE_LEFT);
	table_add_column(table, "TO-SR", TABLE_LEFT);
	table_add_column(table, "VIRTUAL", TABLE_RIGHT);
	table_add_column(table, "ALLOCATED", TABLE_RIGHT);
	for (size_t i = 0; i < plan->n_disks; i++) {
		const struct plan_disk *disk = &plan->disks[i];
		const struct value *record = disk->vdi.record;
		char *size CLEANUP_FREE =
			output_size((uint64_t)record_int(record, "virtual_size", 0));
		char *used CLEANUP_FREE =
			output_size((uint64_t)record_int(record, "physical_utilisation", 0));
		if (tells_snapshot)
			table_add(table, disk->snapshot ? disk->snapshot : "-");
		table_add(table, disk->userdevice);
		table_add(table, object_string(&disk->vdi, "name_label"));
		table_add(table, disk->from);
		table_add(table, disk->to);
		table_add(table, size);
		table_add(table, used);
	}
	table_write(table, out);
}

static void write_cards(const struct plan *plan, struct buf *out)
{
	struct table *table CLEANUP_TABLE = table_new();

	table_add_column(table, "CARD", TABLE_LEFT);
	table_add_column(table, "MAC", TABLE_LEFT);
	table_add_column(table, "FROM-NETWORK", TABLE_LEFT);
	table_add_column(table, "TO-NETWORK", TABLE_LEFT);
	for (size_t i = 0; i < plan->n_cards; i++) {
		const struct plan_card *card = &plan->cards[i];
		table_add(table, object_string(&card->vif, "device"));
		table_add(table, object_string(&card->vif, "MAC"));
		table_add(table, card->from);
		table_add(table, card->to);
	}
	table_write(table, out);
}

void plan_write(const struct context *context, const struct plan *plan, struct buf *out)
{
	char *vm CLEANUP_FREE = object_title(plan->vm.record);
	char *host CLEANUP_FREE = object_title(plan->host.record);
	struct buf head CLEANUP_BUF = BUF_INIT;

	if (plan->is_within)
		buf_printf(&head, "VM %s, within the pool of %s to host %s", vm,
			session_url(context->session), host);
	else
		buf_printf(&head, "VM %s, from %s to %s, host %s", vm,
			session_url(context->session), session_url(context->peer), host);
	char *clean CLEANUP_FREE = output_clean(head.data);
	buf_printf(out, "%s\n", clean);
	if (plan->n_disks)
		write_disks(plan, out);
	if (plan->n_cards)
		write_cards(plan, out);
}

static struct value *disk_to_json(const struct plan_disk *disk)
{
	struct value *json = value_new_struct();

	value_set_string(json, "device", disk->userdevice);
	if (disk->snapshot)
		value_set_string(json, "snapshot", disk->snapshot);
	value_set_string(json, "vdi", object_string(&disk->vdi, "uuid"));
	value_set_string(json, "name", object_string(&disk->vdi, "name_label"));
	value_set_string(json, "from_sr", disk->from);
	value_set_string(json, "to_sr", disk->to);
	value_set_int(json, "virtual", record_int(disk->vdi.record, "virtual_size", 0));
	value_set_int(json, "allocated", record_int(disk->vdi.record, "physical_utilisation", 0));
	return json;
}

static struct value *card_to_json(const struct plan_card *card)
{
	struct value *json = value_new_struct();

	value_set_string(json, "device", object_string(&card->vif, "device"));
	value_set_string(json, "vif", object_string(&card->vif, "uuid"));
	value_set_string(json, "mac", object_string(&card->vif, "MAC"));
	value_set_string(json, "from_network", card->from);
	value_set_string(json, "to_network", card->to);
	return json;
}

struct value *plan_to_json(const struct context *context, const struct plan *plan)
{
	struct value *json = value_new_struct();
	struct value *disks = value_new_array();
	struct value *cards = value_new_array();

	for (size_t i = 0; i < plan->n_disks; i++)
		value_append(disks, disk_to_json(&plan->disks[i]));
	for (size_t i = 0; i < plan->n_cards; i++)
		value_append(cards, card_to_json(&plan->cards[i]));
	value_set_string(json, "vm", object_string(&plan->vm, "uuid"));
	value_set_string(json, "name", object_string(&plan->vm, "name_label"));
	value_set_string(json, "from", session_url(context->session));
	value_set_string(json, "to", session_url(context->peer));
	value_set_string(json, "host", object_string(&plan->host, "uuid"));
	value_set(json, "disks", disks);
	value_set(json, "vifs", cards);
	value_set(json, "options", value_copy(plan->options));
	return json;
}
