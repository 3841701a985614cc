#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes of either side die at random moments of a move, which may be cancelled too. Afterwards the VM is in exactly
one pool, its disks are as they were, and neither pool holds anything else.

FERRY_LONG=1: many rounds. FERRY_SEED: repeats a run. Each round prints what it did.
"""

import os
import random
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, Move, Pool, wait_for
from vmstate import different, vm_state
from xensession import Failure

ROUNDS = 60 if os.environ.get("FERRY_LONG") else 5
SETTINGS = {
    "migration_bandwidth": "24MiB",
    "migration_heartbeat": "300ms",
    "migration_lease": "2s",
    "migration_abandon": "20s",
    "migration_peer_timeout": "15s",
}
DISK = 24 * MIB


class Chaos(unittest.TestCase):
    def setUp(self):
        self.a = self.enterContext(Pool("A", **SETTINGS))
        self.b = self.enterContext(Pool("B", **SETTINGS))
        self.sr = {self.a: self.a.sr_create(), self.b: self.b.sr_create()}
        self.guests = {self.a: self.a.network_create(), self.b: self.b.network_create()}
        self.random = random.Random(os.environ.get("FERRY_SEED") or time.time_ns())

    def make_vm(self):
        disks = [self.a.vdi_create(self.sr[self.a], DISK), self.a.vdi_create(self.sr[self.a], 1 << 32)]
        self.a.vdi_write(disks[0], self.random.randbytes(DISK))
        self.a.vdi_write(disks[1], self.random.randbytes(MIB), offset=3 << 30)
        return self.a.vm_create("guest", disks, [self.guests[self.a]])

    # --- what happens in between ---

    def kill_sender(self):
        self.a.kill()
        time.sleep(self.random.random())
        self.a.start()

    def kill_receiver(self):
        self.b.kill()
        time.sleep(self.random.random())
        self.b.start()

    def kill_both(self):
        self.a.kill()
        self.b.kill()
        self.b.start()
        self.a.start()

    def kill_tgtd(self):
        for pid in self.b.tgtds():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def cancel(self):
        for record in self.a.session.migration.get_all_records().values():
            if record["state"] not in ("DONE", "FAILED", "CANCELLED"):
                try:
                    self.a.session.migration.cancel(self.a.session.migration.get_by_uuid(record["uuid"]))
                except Failure as failure:
                    self.assertEqual(failure.code, "OPERATION_NOT_ALLOWED", failure.details)

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
        for _ in range(self.random.randint(1, 3)):
            pause = self.random.random() * 1.2
            time.sleep(pause)
            act = self.random.choice([self.kill_sender, self.kill_receiver, self.kill_both,
                                      self.kill_tgtd, self.kill_tgtd, self.cancel])
            done.append(f"{pause:.3f} s {act.__name__}")
            act()
        try:
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
