-- SPDX-License-Identifier: Apache-2.0
-- Which coordinator this is: one more each time that another host takes over.

ALTER TABLE meta ADD COLUMN term INTEGER NOT NULL DEFAULT 1;
