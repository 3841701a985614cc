#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The coordinator of a pool is lost, or hands over: members keep copies of its database."""

import contextlib
import os
import sqlite3
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import PASSWORD, Pool, wait_for  # noqa: E402

INTERVAL = 1.0
# What a copy takes, on a machine that does other work too.
SLACK = 3.0


class Base(unittest.TestCase):

    def pools(self, *names):
        """A coordinator and its members."""
        pools = [self.enterContext(Pool(name, pool_copy_interval=f"{int(INTERVAL * 1000)}ms"))
                 for name in names]
        for member in pools[1:]:
            member.join(pools[0])
        return pools

    def copy(self, pool):
        return pool.path("state", "pool.copy.db")

    def ask_copy(self, pool, query, *args):
        """One value of a member's copy; None while there is none."""
        if not os.path.exists(self.copy(pool)):
            return None
        with contextlib.closing(
                sqlite3.connect(f"file:{self.copy(pool)}?mode=ro&immutable=1", uri=True)) as db:
            row = db.execute(query, args).fetchone()
            return row and row[0]

    def copied(self, pool, vm):
        """The member's copy has the VM."""
        return self.ask_copy(pool, "SELECT count(*) FROM VM WHERE ref = ?", vm)


class Copies(Base):

    def test_members_keep_what_the_coordinator_acknowledged(self):
        a, b, c = self.pools("A", "B", "C")
        for member in (b, c):
            wait_for("there is a copy", lambda: os.path.exists(self.copy(member)), 10)
            self.assertEqual(os.stat(self.copy(member)).st_mode & 0o777, 0o600)
        for number in range(3):
            vm = a.vm_create(f"guest {number}")
            for member in (b, c):
                wait_for("it has the VM", lambda: self.copied(member, vm), INTERVAL + SLACK)
        # Users are no objects, and make no generation.
        a.session.call("user.create", "later", PASSWORD, "read-only")
        for member in (b, c):
            wait_for("it has the user", lambda: self.ask_copy(
                member, "SELECT count(*) FROM users WHERE name = 'later'"), INTERVAL + SLACK)
            self.assertEqual(self.ask_copy(member, "PRAGMA integrity_check"), "ok")
        self.assertEqual([name for name in os.listdir(a.path("state")) if "handout" in name], [])

    def test_a_copy_ages_without_its_coordinator_and_ends_with_the_membership(self):
        a, b = self.pools("A", "B")
        wait_for("there is a copy", lambda: os.path.exists(self.copy(b)), 10)
        time.sleep(INTERVAL + SLACK)
        self.assertLess(time.time() - os.stat(self.copy(b)).st_mtime, INTERVAL + SLACK)
        vm = a.vm_create("before")
        wait_for("it has the VM", lambda: self.copied(b, vm), INTERVAL + SLACK)
        b._forget_session()
        a.kill()
        then = os.stat(self.copy(b))
        time.sleep(2 * INTERVAL)
        self.assertEqual(os.stat(self.copy(b)).st_mtime, then.st_mtime)
        self.assertEqual(os.listdir(b.path("state")).count("pool.copy.db.new"), 0)
        a.start()
        after = a.vm_create("after")
        wait_for("it has the next VM", lambda: self.copied(b, after), INTERVAL + SLACK + 5)
        a.session.pool.eject(b.host)
        b.left()
        self.assertFalse(os.path.exists(self.copy(b)))


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
