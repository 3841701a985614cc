-- SPDX-License-Identifier: Apache-2.0
-- Pools of several hosts.

-- Transactions of other hosts that were committed: one whose answer was lost asks again.
CREATE TABLE remote_commits (
	id             INTEGER PRIMARY KEY,
	transaction_id TEXT NOT NULL UNIQUE,
	client         TEXT NOT NULL,
	decided_at     INTEGER NOT NULL
) STRICT;

-- How the hosts of the pool reach each other, and know that they do.
CREATE TABLE host_links (
	host        TEXT PRIMARY KEY, -- its ref
	url         TEXT NOT NULL,
	fingerprint TEXT NOT NULL,    -- of its certificate
	secret      TEXT NOT NULL     -- shared with the coordinator; "" for the coordinator itself
) STRICT;

-- Hosts between two pools: those that may join, and those that had to leave.
CREATE TABLE host_departures (
	host   TEXT NOT NULL,
	secret TEXT NOT NULL,
	bundle TEXT,                  -- what it takes along when it leaves; NULL: it may join
	PRIMARY KEY (host, secret)
) STRICT;
