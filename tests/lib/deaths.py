# SPDX-License-Identifier: Apache-2.0
"""What may befall two pools at a random moment of a move: processes die or stand still, hosts restart, the network is cut,
somebody cancels."""

import os
import random
import signal
import time

from livemove import ENDED, kill_all
from xensession import Failure

LONGEST = 5.0  # seconds: of standing still, and of a cut


class Deaths:
    """For a test case with pools a (the source) and b, and, if there is one, a SlowLink `link` between them."""

    link = None

    def seed(self):
        seed = os.environ.get("FERRY_SEED") or str(time.time_ns())
        print(f"FERRY_SEED={seed}", flush=True)
        self.random = random.Random(seed)
        self.silence = 0.0  # seconds in which a peer could not answer, of the round under way

    def some_time(self):
        seconds = self.random.random() * LONGEST
        self.silence += seconds
        return seconds

    # --- agents ---

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
        for pool in self.random.sample((self.a, self.b), 2):
            pool.start()

    def freeze(self, pool):
        pool.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(self.some_time())
        finally:
            pool.process.send_signal(signal.SIGCONT)

    def freeze_sender(self):
        self.freeze(self.a)

    def freeze_receiver(self):
        self.freeze(self.b)

    # --- hosts and the network ---

    def reboot_source(self):
        self.a.reboot()
        self.a.start()

    def reboot_destination(self):
        self.b.reboot()
        self.b.start()

    def cut(self):
        self.link.cut()
        try:
            time.sleep(self.some_time())
        finally:
            self.link.mend()

    # --- what the agents started ---

    def kill_tgtd(self):
        kill_all(self.b.tgtds(), signal.SIGKILL)

    def kill_watchdog(self):
        kill_all(self.a.watchdogs(), signal.SIGKILL)

    # --- people ---

    def cancel(self):
        session = self.random.choice([self.a, self.b]).session
        for record in session.migration.get_all_records().values():
            if record["state"] not in ENDED:
                try:
                    session.migration.cancel(session.migration.get_by_uuid(record["uuid"]))
                except Failure as failure:
                    self.assertEqual(failure.code, "OPERATION_NOT_ALLOWED", failure.details)

    # --- a round ---

    def befall(self, acts, longest, most=3):
        """One to `most` of the acts, each after a random time up to `longest` seconds. Yields what was done, as text."""
        self.silence = 0.0
        for _ in range(self.random.randint(1, most)):
            pause = self.random.random() * longest
            time.sleep(pause)
            act = self.random.choice(acts)
            yield f"{pause:.3f} s {act.__name__}"
            act()
