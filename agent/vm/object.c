/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm/object.h"

#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/uuid.h"

int vm_object_create(struct pool_db *pool, struct value *vm_fields, struct value *metrics_fields,
	char **ret_vm, struct fault *fault)
{
	char *metrics CLEANUP_FREE = NULL;
	char *vm CLEANUP_FREE = NULL;
	int r = object_create(pool, "VM_metrics", metrics_fields, &metrics, fault);

	if (r < 0)
		return r;
	value_set_string(vm_fields, "metrics", metrics);
	r = object_create(pool, "VM", vm_fields, &vm, fault);
	if (r == 0)
		r = vm_update_allowed_operations(pool, vm, fault);
	if (r == 0)
		*ret_vm = TAKE_PTR(vm);
	return r;
}

static int destroy_where(
	struct pool_db *pool, const char *class, const char *vm, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(pool, class, "VM", vm, &refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++)
		r = object_destroy(pool, class, refs->array.items[i]->string, fault);
	return r;
}

/* The object that a field of the VM names, if any. */
static int destroy_named(
	struct pool_db *pool, const char *class, const char *ref, struct fault *fault)
{
	if (ref_is_null(ref) || !object_exists(pool, class, ref))
		return 0;
	return object_destroy(pool, class, ref, fault);
}

/* What was made after it follows what it was made after. */
static int pass_children_on(struct pool_db *pool, const char *vm, struct fault *fault)
{
	struct value *children CLEANUP_VALUE = NULL;
	struct value *parent CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VM", "parent", vm, &children, fault);

	if (r == 0)
		r = object_get_field(pool, "VM", vm, "parent", &parent, fault);
	for (size_t i = 0; r == 0 && i < children->array.n_items; i++)
		r = object_set_field(
			pool, "VM", children->array.items[i]->string, "parent", parent, fault);
	return r;
}

int vm_object_destroy(struct pool_db *pool, const char *vm, struct fault *fault)
{
	static const char *const parts[] = {"VBD", "VIF", "console"};
	char *metrics CLEANUP_FREE = NULL;
	char *guest CLEANUP_FREE = NULL;
	int r = pass_children_on(pool, vm, fault);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(parts); i++)
		r = destroy_where(pool, parts[i], vm, fault);
	if (r == 0)
		r = object_get_string(pool, "VM", vm, "metrics", &metrics, fault);
	if (r == 0)
		r = object_get_string(pool, "VM", vm, "guest_metrics", &guest, fault);
	if (r == 0)
		r = object_destroy(pool, "VM", vm, fault);
	if (r == 0)
		r = destroy_named(pool, "VM_metrics", metrics, fault);
	if (r == 0)
		r = destroy_named(pool, "VM_guest_metrics", guest, fault);
	return r;
}

char *vm_object_new_mac(void)
{
	unsigned char b[6];

	random_bytes(b, sizeof(b));
	b[0] = (unsigned char)((b[0] & 0xfc) | 0x02);
	return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
}
