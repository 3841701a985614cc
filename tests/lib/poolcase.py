# SPDX-License-Identifier: Apache-2.0
"""Pools of several hosts that lose their coordinator, for tests."""

import contextlib
import os
import sqlite3
import time
import unittest
import xmlrpc.client

from ferrytest import MIB, PASSWORD, Pool, wait_for
from xensession import Failure, Session, Transport

INTERVAL = 1.0
# What a copy takes, on a machine that does other work too.
SLACK = 3.0


def refused(test, code, function, *args):
    with test.assertRaises(Failure) as raised:
        function(*args)
    test.assertEqual(raised.exception.code, code, raised.exception.details)
    return raised.exception.details


class LocalSession(Session):
    """At a member: good for taking over, and nothing else."""

    def __init__(self, url, user=None, password=PASSWORD):
        self.url, self.user, self.password, self.timeout = url, user or "root", password, 60.0
        self._server = xmlrpc.client.ServerProxy(url, transport=Transport(60.0))
        self.ref = self.raw("session.slave_local_login_with_password", self.user, password)


class PoolCase(unittest.TestCase):

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

    def vm_on(self, pool, label="guest"):
        """A halted VM with a disk on that host's own SR; its firmware runs, which is all that is asked of it."""
        vdi = pool.vdi_create(pool.sr_create(f"SR of {pool.name}"), 4 * MIB)
        vm = pool.vm_create(label, [vdi])
        pool.session.VM.set_memory_limits(vm, *[str(64 * MIB)] * 4)
        return vm

    def live(self, pool, host):
        return pool.session.host_metrics.get_live(pool.session.host.get_metrics(host))

    def wait_live(self, pool, *others):
        for other in others:
            wait_for(f"{other.name} is live", lambda: self.live(pool, other.host), 40)

    def lose(self, coordinator, *members):
        """kill -9; what the members' copies have is settled before."""
        time.sleep(INTERVAL + 1)
        for pool in (coordinator, *members):
            pool._forget_session()
        coordinator.kill()

    def take_over(self, member):
        """The member becomes the coordinator; the age that it told of its copy."""
        local = LocalSession(member.url)
        age = int(local.pool.emergency_transition_to_master())
        local.close()
        member.coordinator = None
        # A commit that it had sent to the old one, and heard nothing of, is asked about for 30 s before it starts anew.
        member.session = wait_for(f"{member.name} coordinates", member._try_login, 60)
        return age

    def followed(self, new, *members):
        for member in members:
            member.coordinator = new
            member.session = wait_for(f"{member.name} is a member", member._try_login, 30)

    def state(self, pool, vm):
        record = pool.session.VM.get_record(vm)
        return record["power_state"], record["resident_on"]

    def copied(self, pool, vm):
        """The member's copy has the VM."""
        return self.ask_copy(pool, "SELECT count(*) FROM VM WHERE ref = ?", vm)
