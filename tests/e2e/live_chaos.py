#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes of either side die or stand still at random moments of a live move, hosts restart, the network is cut, it is
cancelled. Afterwards the guest runs in exactly one pool and has noticed nothing, or, if its own QEMU was among the dead, is
halted in exactly one; its disks hold what it wrote, and neither pool holds anything else.

live_chaos.py [ROUNDS]; FERRY_LONG=1: many. FERRY_SEED: repeats a run. Each round prints what it did.
"""

import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from deaths import Deaths  # noqa: E402
from ferrytest import MIB  # noqa: E402
from liveguest import verify_image  # noqa: E402
from livemove import FORGOTTEN, SETTINGS, LiveCase, kill_all  # noqa: E402
from slowlink import SlowLink  # noqa: E402

SEAL = 3.0  # seconds that a paused guest waits for the seal
ROUNDS = 50 if os.environ.get("FERRY_LONG") else 3


class LiveChaos(Deaths, LiveCase):
    told = None  # by the guest, before it was ended
    settings = {**SETTINGS, "migration_bandwidth": "16MiB", "migration_abandon": "20s",
                "migration_peer_timeout": "15s"}
    disks = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:40")]

    @classmethod
    def setUpClass(cls):
        cls.link = cls.enterClassContext(SlowLink(64 * MIB))
        cls.settings_a = {"address": cls.link.near}
        cls.settings_b = {"address": cls.link.far, "enter": cls.link.enter}
        super().setUpClass()

    # --- what happens in between ---

    def end_guest(self):
        """From now on the VM may be halted."""
        self.told = self.guest.console.last_status() or {"disks": [{"sequence": 0}]}

    def kill_sources_guest(self):
        self.end_guest()
        kill_all(self.a.guests(), signal.SIGKILL)

    def reboot_source(self):
        self.end_guest()
        super().reboot_source()

    def reboot_destination(self):
        self.end_guest()
        super().reboot_destination()

    def kill_destinations_guest(self):
        """Only while it waits: afterwards it is the guest. The sender stands still meanwhile, and what it is about to
        do it has recorded."""
        self.a.process.send_signal(signal.SIGSTOP)
        try:
            if self.a.stored_states("sender") <= {"NEW", "PREPARING", "COPYING", "CONVERGING"}:
                kill_all(self.b.guests(), signal.SIGKILL)
        finally:
            self.a.process.send_signal(signal.SIGCONT)

    # --- rounds ---

    def assert_halted(self, pool):
        """As its guest left it: what it had said that it wrote is there. The last record of a disk with discards may be
        gone again."""
        self.assertIsNotNone(self.told, "nobody ended the guest")
        self.guest.now_in(pool)
        for path, last in zip(self.guest.disk_paths(), (self.told["disks"][0]["sequence"], 1)):
            verify_image("loose", path, last)
        self.forget_guest()
        for side in (self.a, self.b):
            side.wait_for_no_leftovers(30)
            self.assertEqual(side.session.VDI.get_all(), [])

    def outcome(self, begun):
        pool = self.where_it_ended()
        if pool.session.VM.get_power_state(pool.vm_by_uuid(self.guest.uuid)) != "Halted":
            return self.assert_somewhere(begun, FORGOTTEN + SEAL + self.silence)
        self.assert_halted(pool)
        return "halted at the source" if pool is self.a else "halted at the destination"

    def one_round(self, number):
        if not self.guest_is_well():
            self.new_guest_runs()
        begun = time.monotonic()
        self.told = None
        self.move().begin()
        done = []
        acts = [self.kill_sender, self.kill_sender, self.kill_receiver, self.kill_both, self.kill_tgtd,
                self.kill_destinations_guest, self.kill_watchdog, self.freeze_sender, self.freeze_receiver, self.cut,
                self.cancel, self.kill_sources_guest, self.reboot_source, self.reboot_destination]
        try:
            for act in self.befall(acts, 3):
                done.append(act)
            if self.told is None:
                self.guest.console.wait_for_any_tick()
            return self.outcome(begun)
        finally:
            print(f"round {number}: {', '.join(done)}; {time.monotonic() - begun:.1f} s", flush=True)

    def test_random_deaths(self):
        self.seed()
        outcomes = [self.one_round(number) for number in range(ROUNDS)]
        print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].isdigit():
        ROUNDS = int(sys.argv.pop(1))
    unittest.main(verbosity=2)
