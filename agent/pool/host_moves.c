/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/host_moves.h"

#include "base/alloc.h"
#include "base/log.h"

#include <string.h>

/* How the doubt that is put here begins: any other is the host's own. */
#define BEGINNING "the host that works on it "

static bool has_ended(const struct value *record)
{
	const struct value *finished = value_find(record, "finished");

	return finished && finished->integer != 0;
}

/* The caller owns it. */
static struct value *read_record(struct pool_db *pool, const struct value *ref)
{
	struct value *record = NULL;

	/* One that is gone meanwhile concerns nobody. */
	return object_get_record(pool, "migration", value_string(ref, ""), &record, NULL) < 0
		       ? NULL
		       : record;
}

static void store(struct pool_db *pool, const struct value *ref, const char *uuid, const char *why)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	value_set_bool(fields, "in_doubt", *why);
	value_set_string(fields, "doubt", why);
	if (object_set_fields(pool, "migration", value_string(ref, ""), fields, &fault) == 0)
		return;
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_warn("HOST_MOVES_NOT_STORED", "migration=%s error=\"%s\"", uuid, text);
}

static struct value *find(struct pool_db *pool, const char *host)
{
	struct value *refs = NULL;

	return object_find(pool, "migration", "host", host, &refs, NULL) < 0 ? value_new_array()
									     : refs;
}

void host_moves_doubt(struct pool_db *pool, const char *host)
{
	struct value *refs CLEANUP_VALUE = find(pool, host);
	char *name CLEANUP_FREE = NULL;

	object_get_string(pool, "host", host, "name_label", &name, NULL);
	for (size_t i = 0; i < refs->array.n_items; i++) {
		struct value *record CLEANUP_VALUE = read_record(pool, refs->array.items[i]);
		if (!record || has_ended(record) || value_find_bool(record, "in_doubt", false))
			continue;
		const char *uuid = value_find_string(record, "uuid", "");
		const char *state = value_find_string(record, "state", "");
		char *why CLEANUP_FREE = xasprintf(BEGINNING
			"(%s) is silent; it was %s when last heard of. It goes on by itself when "
			"that host is back; nothing is decided until then",
			name ? name : host, state);
		log_warn("HOST_MOVE_IN_DOUBT", "migration=%s host=%s state=%s", uuid, host, state);
		store(pool, refs->array.items[i], uuid, why);
	}
}

void host_moves_trust(struct pool_db *pool, const char *host)
{
	struct value *refs CLEANUP_VALUE = find(pool, host);

	for (size_t i = 0; i < refs->array.n_items; i++) {
		struct value *record CLEANUP_VALUE = read_record(pool, refs->array.items[i]);
		if (!record || strncmp(value_find_string(record, "doubt", ""), BEGINNING,
				       strlen(BEGINNING)) != 0)
			continue;
		store(pool, refs->array.items[i], value_find_string(record, "uuid", ""), "");
	}
}
