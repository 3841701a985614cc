-- SPDX-License-Identifier: Apache-2.0
-- Bytes of a source that could not be read, and for which the receiver has zeros: a move that was
-- told so. Rows of one disk never overlap; those of one error never touch.
CREATE TABLE unreadable (
	migration INTEGER NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
	disk      INTEGER NOT NULL,
	offset    INTEGER NOT NULL CHECK (offset >= 0 AND offset % 512 = 0),
	length    INTEGER NOT NULL CHECK (length > 0 AND length % 512 = 0),
	error     INTEGER NOT NULL CHECK (error > 0), -- errno
	PRIMARY KEY (migration, disk, offset)
) STRICT, WITHOUT ROWID;
