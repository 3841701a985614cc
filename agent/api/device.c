/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/device.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* *ret_places: array of what the VM's devices have in the field. */
static int list_places(struct pool_db *pool, const struct device_rule *rule, const char *vm,
	struct value **ret_places, struct fault *fault)
{
	struct value *refs CLEANUP_VALUE = NULL;
	struct value *places CLEANUP_VALUE = value_new_array();
	int r = object_find(pool, rule->class, "VM", vm, &refs, fault);

	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		char *place CLEANUP_FREE = NULL;
		r = object_get_string(pool, rule->class, refs->array.items[i]->string, rule->field,
			&place, fault);
		if (r == 0)
			value_append_string(places, place);
	}
	if (r < 0)
		return r;
	*ret_places = TAKE_PTR(places);
	return 0;
}

static bool is_free(const struct value *places, uint64_t place)
{
	char *text CLEANUP_FREE = xasprintf("%" PRIu64, place);

	return !value_contains_string(places, text);
}

int device_take(struct pool_db *pool, const struct device_rule *rule, const char *vm,
	const char *wanted, uint64_t *ret_place, struct fault *fault)
{
	struct value *places CLEANUP_VALUE = NULL;
	uint64_t place = 0;
	int r = list_places(pool, rule, vm, &places, fault);

	if (r < 0)
		return r;
	if (!wanted || wanted[0] == '\0' || strcmp(wanted, "autodetect") == 0) {
		while (place <= rule->max && !is_free(places, place))
			place++;
		if (place > rule->max)
			return fault_set(fault, -EINVAL, "INVALID_DEVICE", "autodetect", NULL);
		*ret_place = place;
		return 0;
	}
	if (parse_range(wanted, 0, rule->max, &place) < 0)
		return fault_set(fault, -EINVAL, "INVALID_DEVICE", wanted, NULL);
	if (!is_free(places, place)) {
		char *text CLEANUP_FREE = xasprintf("%" PRIu64, place);
		return fault_set(fault, -EEXIST, "DEVICE_ALREADY_EXISTS", text, NULL);
	}
	*ret_place = place;
	return 0;
}

int device_list_free(struct pool_db *pool, const struct device_rule *rule, const char *vm,
	struct value **ret_places, struct fault *fault)
{
	struct value *taken CLEANUP_VALUE = NULL;
	int r;

	if (!object_exists(pool, "VM", vm))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "VM", vm, NULL);
	r = list_places(pool, rule, vm, &taken, fault);
	if (r < 0)
		return r;
	*ret_places = value_new_array();
	for (uint64_t place = 0; place <= rule->max; place++) {
		char *text CLEANUP_FREE = xasprintf("%" PRIu64, place);
		if (!value_contains_string(taken, text))
			value_append_string(*ret_places, text);
	}
	return 0;
}
