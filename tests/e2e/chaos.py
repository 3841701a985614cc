#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes of either side die or stand still at random moments of a move, hosts restart, the network is cut, it is
cancelled. Afterwards the VM is in exactly one pool, its disks are as they were, and neither pool holds anything else.

FERRY_LONG=1: many rounds. FERRY_SEED: repeats a run. Each round prints what it did.
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from deaths import Deaths  # noqa: E402
from ferrytest import MIB, Move, Pool, wait_for  # noqa: E402
from slowlink import SlowLink  # noqa: E402
from vmstate import different, vm_state  # noqa: E402

ROUNDS = 60 if os.environ.get("FERRY_LONG") else 5
SETTINGS = {
    "migration_bandwidth": "24MiB",
    "migration_heartbeat": "300ms",
    "migration_lease": "2s",
    "migration_abandon": "20s",
    "migration_peer_timeout": "15s",
}
DISK = 24 * MIB


class Chaos(Deaths, unittest.TestCase):
    def setUp(self):
        self.link = self.enterContext(SlowLink(64 * MIB))
        self.a = self.enterContext(Pool("A", address=self.link.near, **SETTINGS))
        self.b = self.enterContext(Pool("B", address=self.link.far, enter=self.link.enter, **SETTINGS))
        self.sr = {self.a: self.a.sr_create(), self.b: self.b.sr_create()}
        self.guests = {self.a: self.a.network_create(), self.b: self.b.network_create()}
        self.seed()

    def make_vm(self):
        disks = [self.a.vdi_create(self.sr[self.a], DISK), self.a.vdi_create(self.sr[self.a], 1 << 32)]
        self.a.vdi_write(disks[0], self.random.randbytes(DISK))
        self.a.vdi_write(disks[1], self.random.randbytes(MIB), offset=3 << 30)
        return self.a.vm_create("guest", disks, [self.guests[self.a]])

    # --- what must hold ---

    def settled(self):
        """The task is there from the beginning, the migration only after the checks."""
        for pool in (self.a, self.b):
            if any(task["status"] == "pending" for task in pool.session.task.get_all_records().values()):
                return False
            for record in pool.session.migration.get_all_records().values():
                if record["state"] not in ("DONE", "FAILED", "CANCELLED"):
                    return False
        return True

    def check(self, uuid, before):
        here, there = self.a.vm_by_uuid(uuid), self.b.vm_by_uuid(uuid)
        self.assertNotEqual(here is None, there is None, "the VM is in exactly one pool")
        pool, vm = (self.b, there) if here is None else (self.a, here)
        self.assertEqual(different(before, vm_state(pool, vm)), [])
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()
        vdis = pool.disks_of(vm)
        pool.session.VM.destroy(vm)
        for vdi in vdis:
            pool.session.VDI.destroy(vdi)
        for other in (self.a, self.b):
            self.assertEqual(other.session.VDI.get_all(), [])
        return "moved" if here is None else "stayed"

    def one_round(self, number):
        vm = self.make_vm()
        uuid, before = self.a.session.VM.get_uuid(vm), vm_state(self.a, vm)
        Move(self.a, self.b, vm, self.sr[self.b], self.guests[self.b]).begin()
        done = []
        acts = [self.kill_sender, self.kill_receiver, self.kill_both, self.kill_tgtd, self.kill_tgtd, self.cancel,
                self.reboot_source, self.reboot_destination, self.freeze_sender, self.freeze_receiver, self.cut]
        try:
            for act in self.befall(acts, 1.2):
                done.append(act)
            wait_for("the migration settles on both sides", self.settled, 90, 0.2)
            outcome = self.check(uuid, before)
        except Exception:
            self.a.show_log(200)
            self.b.show_log(200)
            raise
        finally:
            print(f"round {number}: {', '.join(done)}", flush=True)
        return outcome

    def test_random_deaths(self):
        outcomes = [self.one_round(number) for number in range(ROUNDS)]
        print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})


if __name__ == "__main__":
    unittest.main(verbosity=2)
