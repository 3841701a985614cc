/* SPDX-License-Identifier: Apache-2.0 */
#include "schema/classes.h"

#include "base/cleanup.h"
#include "schema/fields_network.h"
#include "schema/fields_pool.h"
#include "schema/fields_storage.h"
#include "schema/fields_vm.h"

#include <string.h>
#include <strings.h>

#define CLASS(class_name, text, ...)                                                               \
	{                                                                                          \
		.name = #class_name, .doc = text, .fields = class_name##_fields,                   \
		.n_fields = ARRAY_SIZE(class_name##_fields), __VA_ARGS__                           \
	}

const struct class classes[] = {
	CLASS(pool, "Hosts that share one database; there is one record."),
	CLASS(host, "A machine with its agent."),
	CLASS(host_metrics, "What changes often about a host."),
	CLASS(session, "A login. Not listed.", .hidden = true),
	CLASS(task, "A call that runs, or has run, in the background."),
	CLASS(migration, "One move of one VM, as this side sees it. Not in XenAPI."),
	CLASS(SM, "A kind of storage repository that the agents can serve."),
	CLASS(SR, "A storage repository: where disks lie."),
	CLASS(PBD, "How one host reaches one SR."),
	CLASS(VDI, "A disk."),
	CLASS(VBD, "A disk, or a drive, in a VM."),
	CLASS(VM, "A virtual machine, a template, or a snapshot of one."),
	CLASS(VM_metrics, "What changes often about a VM."),
	CLASS(VM_guest_metrics, "What a guest's agent tells about itself."),
	CLASS(VIF, "A network card in a VM."),
	CLASS(network, "What network cards are joined to."),
	CLASS(PIF, "A network card of a host."),
	CLASS(console, "A way to see and type into a VM."),
};

const size_t n_classes = ARRAY_SIZE(classes);

const struct class *class_find(const char *name)
{
	for (size_t i = 0; i < n_classes; i++)
		if (strcmp(classes[i].name, name) == 0)
			return &classes[i];
	return NULL;
}

const struct class *class_find_nocase(const char *name)
{
	for (size_t i = 0; i < n_classes; i++)
		if (strcasecmp(classes[i].name, name) == 0)
			return &classes[i];
	return NULL;
}

const struct class_field *class_field_find(const struct class *class, const char *name)
{
	for (size_t i = 0; i < class->n_fields; i++)
		if (strcmp(class->fields[i].name, name) == 0)
			return &class->fields[i];
	return NULL;
}

bool class_has_field(const struct class *class, const char *name)
{
	return class_field_find(class, name) != NULL;
}
