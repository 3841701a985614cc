/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/ova_internal.h"

#include "base/cleanup.h"

#include <string.h>

static const struct ova_class classes[] = {
	{
		.name = "VM",
		.relations = {{"metrics", "VM_metrics", false}, {"affinity", "host", false},
			{"snapshot_of", "VM", true}, {"parent", "VM", true}},
	},
	{.name = "VM_metrics"},
	{
		.name = "VBD",
		.relations = {{"VM", "VM", true}, {"VDI", "VDI", false}},
	},
	{
		.name = "VIF",
		.relations = {{"VM", "VM", true}, {"network", "network", false}},
	},
	{
		.name = "VDI",
		.relations = {{"SR", "SR", false}, {"snapshot_of", "VDI", true}},
		.more = {"location", "virtual_size"},
	},
	{.name = "network"},
	{.name = "SR", .more = {"uuid", "name_label"}, .is_named_only = true},
	{.name = "host", .more = {"uuid", "name_label", "hostname"}, .is_named_only = true},
};

const struct ova_class *ova_class_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
		if (strcmp(classes[i].name, name) == 0)
			return &classes[i];
	return NULL;
}
