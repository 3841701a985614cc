/* SPDX-License-Identifier: Apache-2.0 */
/* The values of ferryd's configuration: parsing, limits, what is allowed, and back to text. */
#ifndef FERRY_AGENT_CONFIG_VALUE_H
#define FERRY_AGENT_CONFIG_VALUE_H

#include "agent/config.h"

#include <stddef.h>
#include <stdint.h>

/* Longest run_dir: beneath it tgtd makes "<uuid>/<name>.<port>.lock", which must fit in sun_path
 * (108 bytes with the NUL). */
#define CONFIG_RUN_DIR_MAX 50

enum config_type {
	CONFIG_TEXT,     /* not empty, no spaces */
	CONFIG_NAME,     /* any UTF-8 text of one line; empty: the hostname */
	CONFIG_PATH,     /* absolute */
	CONFIG_LISTEN,   /* numeric address and port */
	CONFIG_NUMERIC,  /* numeric address */
	CONFIG_HOST,     /* numeric address or name; empty: worked out */
	CONFIG_LEVEL,    /* of the log */
	CONFIG_SWITCH,   /* on: 1, off: 0 */
	CONFIG_COUNT,    /* decimal */
	CONFIG_DURATION, /* parse_duration() */
	CONFIG_SIZE,     /* parse_size() */
};

struct config_key {
	const char *section;
	const char *name;
	enum config_type type;
	size_t offset; /* in struct config */
	const char *fallback;
	uint64_t min, max; /* of numbers; max: of bytes of texts */
	uint64_t step;     /* numbers are multiples of it; 0: any */
	const char *zero;  /* what 0 means when it is allowed though it is below min; NULL */
};

/* Stores the parsed value; -EINVAL or -ERANGE and nothing is stored when it is not allowed. */
int config_value_parse(const struct config_key *key, const char *text, struct config *config);
/* "a number from 1 to 256": for people; the caller frees it. */
char *config_value_allowed(const struct config_key *key);
/* The value in the form that config_value_parse reads; the caller frees it. */
char *config_value_format(const struct config_key *key, const struct config *config);
void config_value_clear(const struct config_key *key, struct config *config);

/* Fills in what is worked out from the machine: names and the address that peers use. */
void config_value_complete(struct config *config);

#endif
