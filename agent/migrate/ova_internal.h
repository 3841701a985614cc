/* SPDX-License-Identifier: Apache-2.0 */
/* The classes of a document; shared by ova_export.c and ova_import.c. */
#ifndef FERRY_AGENT_MIGRATE_OVA_INTERNAL_H
#define FERRY_AGENT_MIGRATE_OVA_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#define OVA_MAX_RELATIONS 5

struct ova_relation {
	const char *field; /* NULL: the end */
	const char *class;
	bool is_weak; /* null unless the other is in the document for its own sake */
};

struct ova_class {
	const char *name;
	struct ova_relation relations[OVA_MAX_RELATIONS];
	const char *more[OVA_MAX_RELATIONS]; /* fields that do not travel otherwise */
	bool is_named_only;                  /* no other fields than those */
};

/* NULL: it has no place in a document. */
const struct ova_class *ova_class_find(const char *name);

#endif
