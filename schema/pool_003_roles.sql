-- SPDX-License-Identifier: Apache-2.0
-- What a user may do. Who could log in before could do everything.

ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'pool-admin';
