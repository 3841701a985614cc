#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest that runs and writes while its move loses the network, or the destination its space: it ends in exactly one
pool, has noticed nothing, and its disks are right. FERRY_LONG: in every state, and cuts of every length."""

import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, give, wait_for
from livemove import FORGOTTEN, LiveCase, SenderLog
from slowlink import SlowLink
from xensession import Failure, wait_by_events

LONG = bool(os.environ.get("FERRY_LONG"))
STATES = ("COPYING", "CONVERGING", "SWITCHING")
SEAL = 3.0  # seconds that a paused guest waits for the seal
# Seconds: shorter than the lease, longer than it, longer than a receiver waits at all (SETTINGS).
BLINK, LAPSE, AGE = 1.0, 5.0, 12.0
CUTS = [(state, length) for state in STATES for length in (BLINK, LAPSE, AGE)] if LONG else \
    [("CONVERGING", LAPSE), ("SWITCHING", LAPSE)]


class Faults(LiveCase):
    disks = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:30")]

    def begin_until(self, state):
        log = SenderLog(self.a)
        self.addCleanup(log.close)
        task = self.move(bandwidth=str(16 * MIB)).begin()
        self.assertIsNotNone(log.wait_for_state(state), "it ended before")
        return task, log

    def end_of(self, task):
        """What became of it, by the task: None, or the failure."""
        try:
            wait_by_events(self.a.session, task, 120.0)
        except Failure as failure:
            return failure
        return None


class Network(Faults):
    """Pool B stands behind a link that is cut: nothing passes, and nobody is told."""

    @classmethod
    def setUpClass(cls):
        cls.link = cls.enterClassContext(SlowLink(64 * MIB))
        cls.settings_a = {"address": cls.link.near}
        cls.settings_b = {"address": cls.link.far, "enter": cls.link.enter}
        super().setUpClass()

    def cut(self, state, length):
        begun = time.monotonic()
        task, log = self.begin_until(state)
        self.link.cut()
        try:
            time.sleep(length)
            if state != "SWITCHING":
                self.guest.console.wait_for_tick(self.a)
        finally:
            self.link.mend()
        # Once the commit is asked for it waits for the answer.
        waits = log.has_entered("COMMITTING")
        failure = self.end_of(task)
        ended = self.assert_somewhere(begun, FORGOTTEN + max(SEAL, length if waits else 0))
        self.assertEqual(ended, "stayed" if failure else "moved", failure)
        return failure

    def test_cuts(self):
        for state, length in CUTS:
            with self.subTest(state=state, seconds=length):
                failure = self.cut(state, length)
                if state == "COPYING" and length < AGE:
                    self.assertIsNone(failure, "the copy goes on from its log")


class Space(Faults):
    """Somebody else fills the file system at the destination."""

    def small_sr(self):
        folder = self.b.path("small")
        os.mkdir(folder)
        self.addCleanup(os.rmdir, folder)
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0755", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            self.skipTest("mounting a tmpfs needs root")
        self.addCleanup(subprocess.run, ["umount", "--lazy", folder], check=True)
        give(folder)
        return folder, self.b.sr_create("small", folder)

    @staticmethod
    def fill(folder):
        path = os.path.join(folder, ".filler")
        with open(path, "wb", buffering=0) as file:
            try:
                while file.write(bytes(256 << 10)):
                    pass
            except OSError:
                pass
        return path

    def unpause(self):
        """What an operator does when there is room again: QEMU stops a guest whose disk is full."""
        vm = self.b.vm_by_uuid(self.guest.uuid)
        if vm and self.b.session.VM.get_power_state(vm) == "Paused":
            self.b.session.VM.unpause(vm)

    def test_it_runs_full(self):
        folder, self.sr[self.b] = self.small_sr()
        for state in STATES if LONG else ("CONVERGING",):
            with self.subTest(state=state):
                begun = time.monotonic()
                task, _ = self.begin_until(state)
                filler = self.fill(folder)
                try:
                    failure = self.end_of(task)
                finally:
                    os.unlink(filler)
                self.unpause()
                if state == "COPYING":
                    self.assertIn(failure and failure.code, ("SR_BACKEND_FAILURE_44", "VDI_COPY_FAILED"))
                    self.assertIn("space", repr(failure.details).lower())
                self.assertEqual(self.assert_somewhere(begun), "stayed" if failure else "moved")


if __name__ == "__main__":
    unittest.main(verbosity=2)
