/* SPDX-License-Identifier: Apache-2.0 */
/* How a field is written in the lists (fields_*.h), which classes.c alone includes. */
#ifndef FERRY_SCHEMA_FIELDS_H
#define FERRY_SCHEMA_FIELDS_H

#include "schema/classes.h"

/* F(name_label, STRING, RW, .doc = "what people call it") */
#define F(field, kind, rights, ...)                                                                \
	{                                                                                          \
		.name = #field, .type = FIELD_##kind, .access = FIELD_##rights, __VA_ARGS__        \
	}

#define UUID_FIELD F(uuid, STRING, RO, .doc = "unique, in lower case")
#define NAME_FIELDS                                                                                \
	F(name_label, STRING, RW, .doc = "what people call it"),                                   \
		F(name_description, STRING, RW, .doc = "free text")
#define OPERATION_FIELDS                                                                           \
	F(allowed_operations, SET_STRING, RO, .doc = "what may be asked of it now"),               \
		F(current_operations, MAP, RO, .doc = "task ref to operation under way")
#define OTHER_CONFIG_FIELD F(other_config, MAP, RW, .doc = "free keys of clients")
#define QOS_FIELDS                                                                                 \
	F(qos_algorithm_type, STRING, RW), F(qos_algorithm_params, MAP, RW),                       \
		F(qos_supported_algorithms, SET_STRING, RO)

#endif
