# SPDX-License-Identifier: Apache-2.0
"""Two pools whose daemons have fault points, with a VM that goes to and fro between them, halted or running; and what must
hold of it after a move, whatever became of that."""

import contextlib
import os
import signal
import time
import unittest

import linuxguest
from ferrytest import MIB, Move, Pool, wait_for
from liveguest import LiveGuest
from livemove import ENDED, left_in_qemu
from vmstate import different, vm_state
from xensession import Failure

SETTINGS = {
    "migration_heartbeat": "300ms",
    "migration_lease": "1s",
    "migration_abandon": "6s",
    "migration_peer_timeout": "20s",
}
# What a guest may be paused for, with what the fault itself costs it: a daemon that is started again, a hang.
PAUSE = 8.0


class Pools(unittest.TestCase):
    maxDiff = None
    live = False
    settings = SETTINGS

    def setUp(self):
        super().setUp()
        self.stack = self.enterContext(contextlib.ExitStack())
        self.make_pools()

    def make_pools(self):
        """New ones; after a failure nothing of the old ones is trusted."""
        self.stack.close()
        self.a = self.stack.enter_context(Pool("A", points=True, **self.settings))
        self.b = self.stack.enter_context(Pool("B", points=True, **self.settings))
        self.sr = {pool: pool.sr_create() for pool in (self.a, self.b)}
        self.net = {pool: pool.network_create() for pool in (self.a, self.b)}
        self.make_vm()

    def find_direction(self):
        """The next move goes from where the VM is to the other pool."""
        self.source = self.source_pool()
        self.destination = self.b if self.source is self.a else self.a

    @contextlib.contextmanager
    def frozen(self, pool):
        """Its daemon stands still."""
        pool.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            pool.process.send_signal(signal.SIGCONT)

    # --- what must hold ---

    def settled(self):
        for pool in (self.a, self.b):
            try:
                if any(task["status"] == "pending" for task in pool.session.task.get_all_records().values()) or any(
                        record["state"] not in ENDED for record in pool.session.migration.get_all_records().values()):
                    return False
            except Failure as failure:
                if failure.code != "INTERNAL_ERROR":
                    raise
                return False
        return True

    def where_it_ended(self):
        wait_for("the migration settles on both sides", self.settled, 60, 0.1)
        pools = [pool for pool in (self.a, self.b) if pool.vm_by_uuid(self.uuid)]
        self.assertEqual(len(pools), 1, f"the VM is in {[pool.name for pool in pools]}")
        return pools[0]

    def assert_laws(self, begun):
        """Where the VM ended: "moved" or "stayed"."""
        pool = self.where_it_ended()
        other = self.b if pool is self.a else self.a
        self.assert_vm(pool, begun)
        running = [self.uuid] if self.live else []
        other.wait_for_no_leftovers(20)
        pool.wait_for_no_leftovers(20, running=running)
        self.assertEqual(other.session.VDI.get_all(), [])
        self.assertIsNone(other.vm_by_uuid(self.uuid))
        self.assertIn("migrate_send", pool.session.VM.get_allowed_operations(pool.vm_by_uuid(self.uuid)))
        self.assertEqual([status for pool in (self.a, self.b) for status in self.failed_stops(pool)], [])
        return "stayed" if pool is self.source else "moved"

    @staticmethod
    def failed_stops(pool):
        """The daemon runs, and has not died of anything but the fault."""
        status = pool.process.poll() if pool.process else "not started"
        return [] if status is None else [f"ferryd of pool {pool.name}: {status}"]


class ColdPools(Pools):
    def make_vm(self):
        disks = [self.a.vdi_create(self.sr[self.a], 4 * MIB), self.a.vdi_create(self.sr[self.a], 256 * MIB)]
        self.a.vdi_write(disks[0], os.urandom(4 * MIB))
        self.a.vdi_write(disks[1], os.urandom(MIB), offset=200 * MIB)
        vm = self.a.vm_create("guest", disks, [self.net[self.a]])
        self.uuid = self.a.session.VM.get_uuid(vm)
        self.before = vm_state(self.a, vm)

    def source_pool(self):
        return self.a if self.a.vm_by_uuid(self.uuid) else self.b

    def begin_move(self, options):
        vm = self.source.vm_by_uuid(self.uuid)
        self.before = vm_state(self.source, vm)
        return Move(self.source, self.destination, vm, self.sr[self.destination], self.net[self.destination],
                    options=options).begin()

    def assert_vm(self, pool, begun):
        self.assertEqual(different(self.before, vm_state(pool, pool.vm_by_uuid(self.uuid))), [])


class LivePools(Pools):
    live = True
    # A lease that runs out costs the stream of the memory, which is begun three times at most: not for a busy machine.
    settings = {**SETTINGS, "migration_lease": "3s"}
    guest = None
    pause = PAUSE

    def make_vm(self):
        linuxguest.kernel()
        if self.guest:
            self.guest.close()
        self.guest = LiveGuest(self.a, "guest", [(8 * MIB, "random:100:4:0:6"), (8 * MIB, "mixed:30")], pools=[self.a, self.b],
                               sr=self.sr[self.a], networks=[self.net[self.a]])
        self.uuid = self.guest.uuid
        self.stack.callback(self.end_guest)
        self.guest.start()

    def end_guest(self):
        """A pool does not end with a guest."""
        self.guest.close()
        for pool in (self.a, self.b):
            vm = pool.session and pool.vm_by_uuid(self.uuid)
            if vm and pool.session.VM.get_power_state(vm) != "Halted":
                pool.session.VM.hard_shutdown(vm)

    def source_pool(self):
        return self.guest.pool

    def begin_move(self, options):
        return Move(self.source, self.destination, self.guest.vm, self.sr[self.destination], self.net[self.destination],
                    options=options).begin()

    def assert_vm(self, pool, begun):
        guest = self.guest
        guest.now_in(pool)
        guest.console.wait_for_tick(pool)
        record = pool.session.VM.get_record(guest.vm)
        self.assertEqual((record["power_state"], record["resident_on"]), ("Running", pool.host))
        self.assertEqual(len(self.a.guests() + self.b.guests()), 1)
        self.assertEqual(left_in_qemu(pool, guest.uuid), [])
        self.assertLess(guest.console.pause(begun), self.pause)
        self.patiently(guest.verify_inside)
        self.patiently(guest.verify_outside)
        self.patiently(lambda: guest.command("go", timeout=20))

    @staticmethod
    def patiently(ask):
        """QEMU's log of the console may have a byte twice: then the answer is not understood, and is asked for again."""
        try:
            return ask()
        except TimeoutError:
            return ask()
