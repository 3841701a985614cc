-- SPDX-License-Identifier: Apache-2.0
-- pool.db. The tables of the XenAPI classes are not here: they are made from the class list.

CREATE TABLE meta (
	one        INTEGER PRIMARY KEY CHECK (one = 1),
	generation INTEGER NOT NULL CHECK (generation >= 0) -- of the last change of an object
) STRICT;
INSERT INTO meta (one, generation) VALUES (1, 0);

-- Objects that are gone, for events; the newest of each class.
CREATE TABLE tombstones (
	class       TEXT NOT NULL,
	ref         TEXT NOT NULL,
	created_gen INTEGER NOT NULL,
	deleted_gen INTEGER NOT NULL,
	PRIMARY KEY (class, deleted_gen)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
	name          TEXT PRIMARY KEY,
	password_hash TEXT NOT NULL
) STRICT;

-- The decision about an incoming migration: written once, never changed.
CREATE TABLE commits (
	migration  TEXT PRIMARY KEY,
	committed  INTEGER NOT NULL CHECK (committed IN (0, 1)),
	vm_ref     TEXT CHECK ((vm_ref IS NOT NULL) = committed),
	decided_at INTEGER NOT NULL
) STRICT;
