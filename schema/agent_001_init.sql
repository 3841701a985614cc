-- SPDX-License-Identifier: Apache-2.0
-- agent.db: what this host is in the middle of.

CREATE TABLE migrations (
	id       INTEGER PRIMARY KEY,
	uuid     TEXT NOT NULL UNIQUE,
	role     TEXT NOT NULL CHECK (role IN ('sender', 'receiver')),
	state    TEXT NOT NULL,
	document TEXT NOT NULL,              -- JSON, defined by agent/migrate
	created  INTEGER NOT NULL,           -- wall seconds
	finished INTEGER NOT NULL DEFAULT 0  -- 0: under way
) STRICT;

-- Every move of the state machine, oldest first.
CREATE TABLE moves (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	migration  INTEGER NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
	at         INTEGER NOT NULL,
	from_state TEXT NOT NULL,
	to_state   TEXT NOT NULL,
	event      TEXT NOT NULL
) STRICT;
CREATE INDEX moves_migration ON moves (migration);

-- What exists outside the database because of a migration ('': because of none). Recorded before
-- it is made, forgotten after it is gone; removal goes from the newest to the oldest id.
CREATE TABLE resources (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	owner  TEXT NOT NULL,
	kind   TEXT NOT NULL,
	name   TEXT NOT NULL,
	detail TEXT,                         -- JSON
	UNIQUE (kind, name)
) STRICT;
CREATE INDEX resources_owner ON resources (owner);

-- Bytes of a disk that the receiver does not surely hold. Rows of one disk never touch or overlap.
CREATE TABLE extents (
	migration INTEGER NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
	disk      INTEGER NOT NULL,
	offset    INTEGER NOT NULL CHECK (offset >= 0 AND offset % 512 = 0),
	length    INTEGER NOT NULL CHECK (length > 0 AND length % 512 = 0),
	PRIMARY KEY (migration, disk, offset)
) STRICT, WITHOUT ROWID;

-- Digests of what was sent, a span of chunks a row; no row: the span is all zero.
CREATE TABLE digests (
	id        INTEGER PRIMARY KEY,
	migration INTEGER NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
	disk      INTEGER NOT NULL,
	span      INTEGER NOT NULL,
	digests   BLOB NOT NULL,
	UNIQUE (migration, disk, span)
) STRICT;
