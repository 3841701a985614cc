/* SPDX-License-Identifier: Apache-2.0 */
/* The numbered .sql files of this folder, embedded by embed_sql.cmake. */
#ifndef FERRY_SCHEMA_MIGRATIONS_H
#define FERRY_SCHEMA_MIGRATIONS_H

#include "schema/db.h"

#include <stddef.h>

extern const struct db_migration pool_migrations[];
extern const size_t n_pool_migrations;
extern const struct db_migration agent_migrations[];
extern const size_t n_agent_migrations;

#endif
