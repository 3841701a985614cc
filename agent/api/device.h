/* SPDX-License-Identifier: Apache-2.0 */
/* The places that VBDs and VIFs take in a VM: decimal text, each used once. */
#ifndef FERRY_AGENT_API_DEVICE_H
#define FERRY_AGENT_API_DEVICE_H

#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdint.h>

struct device_rule {
	const char *class; /* "VBD" */
	const char *field; /* that holds the place: "userdevice" */
	uint64_t max;      /* last place */
};

/* Checks the place asked for, or finds the first free one when it is NULL, "" or "autodetect".
 * INVALID_DEVICE [place], DEVICE_ALREADY_EXISTS [place]. Inside the transaction that creates. */
int device_take(struct pool_db *pool, const struct device_rule *rule, const char *vm,
	const char *wanted, uint64_t *ret_place, struct fault *fault);

/* *ret_places: array of the free places, as text; of a VM that does not exist: HANDLE_INVALID. */
int device_list_free(struct pool_db *pool, const struct device_rule *rule, const char *vm,
	struct value **ret_places, struct fault *fault);

/* A VIF's MAC: a random one when it has none. MAC_INVALID [mac]. */
int vif_take_mac(struct value *fields, struct fault *fault);

#endif
