#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes of either side die at random moments of a live move, which may be cancelled too. Afterwards the guest runs in
exactly one pool, has noticed nothing, its disks hold what it wrote, and neither pool holds anything else.

live_chaos.py [ROUNDS]; FERRY_LONG=1: many. FERRY_SEED: repeats a run. Each round prints what it did.
"""

import os
import random
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB  # noqa: E402
from livemove import ENDED, SETTINGS, LiveCase, kill_all  # noqa: E402
from xensession import Failure  # noqa: E402

ROUNDS = 50 if os.environ.get("FERRY_LONG") else 3


class LiveChaos(LiveCase):
    settings = {**SETTINGS, "migration_bandwidth": "16MiB", "migration_abandon": "20s",
                "migration_peer_timeout": "15s"}
    disks = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:40")]

    def setUp(self):
        super().setUp()
        seed = os.environ.get("FERRY_SEED") or str(time.time_ns())
        print(f"FERRY_SEED={seed}", flush=True)
        self.random = random.Random(seed)

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
        self.random.choice([(self.a, self.b), (self.b, self.a)])[0].start()
        for pool in (self.a, self.b):
            if pool.process is None:
                pool.start()

    def kill_tgtd(self):
        kill_all(self.b.tgtds(), signal.SIGKILL)

    def kill_destinations_guest(self):
        """Only while it waits: afterwards it is the guest. The sender stands still meanwhile, and what it is about to
        do it has recorded."""
        self.a.process.send_signal(signal.SIGSTOP)
        try:
            if self.a.stored_states("sender") <= {"NEW", "PREPARING", "COPYING", "CONVERGING"}:
                kill_all(self.b.guests(), signal.SIGKILL)
        finally:
            self.a.process.send_signal(signal.SIGCONT)

    def cancel(self):
        for record in self.a.session.migration.get_all_records().values():
            if record["state"] not in ENDED:
                try:
                    self.a.session.migration.cancel(self.a.session.migration.get_by_uuid(record["uuid"]))
                except Failure as failure:
                    self.assertEqual(failure.code, "OPERATION_NOT_ALLOWED", failure.details)

    # --- rounds ---

    def one_round(self, number):
        begun = time.monotonic()
        self.move().begin()
        done = []
        try:
            for _ in range(self.random.randint(1, 3)):
                pause = self.random.random() * 3
                time.sleep(pause)
                act = self.random.choice([self.kill_sender, self.kill_sender, self.kill_receiver, self.kill_both,
                                          self.kill_tgtd, self.kill_destinations_guest, self.cancel])
                done.append(f"{pause:.3f} s {act.__name__}")
                act()
            self.guest.console.wait_for_any_tick()
            return self.assert_somewhere(begun)
        finally:
            print(f"round {number}: {', '.join(done)}; {time.monotonic() - begun:.1f} s", flush=True)

    def test_random_deaths(self):
        outcomes = [self.one_round(number) for number in range(ROUNDS)]
        print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].isdigit():
        ROUNDS = int(sys.argv.pop(1))
    unittest.main(verbosity=2)
