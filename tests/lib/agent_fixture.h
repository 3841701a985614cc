/* SPDX-License-Identifier: Apache-2.0 */
/* A folder that is removed afterwards, with an agent.db that knows a migration "m". */
#ifndef FERRY_TESTS_LIB_AGENT_FIXTURE_H
#define FERRY_TESTS_LIB_AGENT_FIXTURE_H

#include "tests/lib/check.h"
#include "tests/lib/folder.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "schema/agent_db.h"

struct agent_fixture {
	struct folder folder;
	struct agent_db *agent;
	struct fault fault;
};

static inline void agent_fixture_insert(struct agent_fixture *fixture, const char *uuid)
{
	const struct migration_row row = {
		.uuid = (char *)uuid, .role = ROLE_SENDER, .state = STATE_NEW, .created = 1};

	check_ok(&fixture->fault, migration_insert(fixture->agent, &row, &fixture->fault));
}

static inline void agent_fixture_reopen(struct agent_fixture *fixture)
{
	fixture->agent = agent_db_close(fixture->agent);
	check_ok(&fixture->fault,
		agent_db_open(fixture->folder.database, &fixture->agent, &fixture->fault));
}

static inline int agent_fixture_setup(void **state)
{
	struct agent_fixture *fixture = xcalloc(1, sizeof(*fixture));

	*state = fixture;
	folder_make(&fixture->folder);
	agent_fixture_reopen(fixture);
	agent_fixture_insert(fixture, "m");
	return 0;
}

static inline int agent_fixture_teardown(void **state)
{
	struct agent_fixture *fixture = *state;

	agent_db_close(fixture->agent);
	folder_remove(&fixture->folder);
	fault_clear(&fixture->fault);
	free(fixture);
	return 0;
}

#endif
