#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest that runs and writes moves to another pool: it notices nothing, nothing is lost, and whatever goes wrong before
the commit leaves it where it was, running.

FERRY_LONG=1: more patterns, and each failure in each state.
"""

import os
import signal
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, wait_for  # noqa: E402
from liveguest import check_file_system, verify_files, verify_image  # noqa: E402
from livemove import DISKS, LiveCase, SenderLog, kill_all, qmp  # noqa: E402
from xensession import Failure, wait_by_events  # noqa: E402

LONG = bool(os.environ.get("FERRY_LONG"))
RUNNING = ("COPYING", "CONVERGING", "SWITCHING")


class Moves(LiveCase):
    """At full speed."""

    def assert_pause(self, record, begun):
        """What the record tells of the pause is what the console showed."""
        parts = {name: float(value) for name, value in record["pause"].items()}
        shown = self.guest.console.pause(begun) * 1000
        self.assertGreater(parts["total"], 0)
        # Of the console's ticks one comes each 10 ms.
        self.assertLess(parts["total"], shown + 50)
        spent = [value for name, value in parts.items() if name not in ("total", "predicted")]
        self.assertLessEqual(max(spent), parts["total"] + 1)
        print(f"pause {parts['total']:.0f} ms by the record ({record['pause']}), {shown:.0f} ms by the console",
              flush=True)

    def test_there_and_back(self):
        begun = time.monotonic()
        record = self.go(there=True)
        self.assertEqual(record["state"], "DONE")
        self.assertTrue(record["live"])
        self.assert_pause(record, begun)
        self.assert_content()
        back = time.monotonic()
        self.assert_pause(self.go(there=False), back)
        told = self.assert_content()
        self.assertGreater(told["disks"][1]["discards"], 0)
        for disk in told["disks"]:
            self.assertGreater(disk["writes"], 0)

    def test_the_file_system_is_clean_where_it_ends(self):
        self.go(there=True)
        guest = self.guest
        ended = guest.power_off()
        paths = guest.disk_paths()
        check_file_system(paths[2])
        folder = self.b.path("files")
        os.mkdir(folder)
        verify_files(paths[2], ended["disks"][2], folder)
        for disk, path in zip(ended["disks"][:2], paths):
            verify_image("table", path, disk["disk"], disk["hash"])
        self.b.wait_for_no_leftovers()
        vdis = self.b.disks_of(guest.vm)
        self.b.session.VM.destroy(guest.vm)
        for vdi in vdis:
            self.b.session.VDI.destroy(vdi)


class Formats(LiveCase):
    """A disk that is no raw image is read through the guest's own QEMU, and is raw where it arrives."""

    disks = [(16 * MIB, "random:200:4:0:12"), (16 * MIB, "mixed:60", "qcow2")]

    def test_a_qcow2_disk_moves_with_its_guest(self):
        source = self.guest.disk_paths()
        self.assertEqual([path.rsplit(".", 1)[1] for path in source], ["raw", "qcow2"])
        self.go(there=True)
        self.assertEqual({path.rsplit(".", 1)[1] for path in self.guest.disk_paths()}, {"raw"})
        self.assert_content()
        self.assertFalse([path for path in source if os.path.exists(path)])


class Machines(LiveCase):
    """What the source's QEMU calls "pc" is another machine than the destination's, as of an older release."""

    disks = [(16 * MIB, "random:100:4:0:12")]

    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="f.", dir="/tmp"))
        os.chmod(folder, 0o755)
        older = os.path.join(folder, "qemu")
        with open(older, "w", encoding="ascii") as script:
            script.write('#!/bin/sh\n'
                         'for a; do shift; case $a in pc,*) a=pc-i440fx-6.2,${a#pc,} ;; esac; set -- "$@" "$a"; done\n'
                         'exec /usr/bin/qemu-system-x86_64 "$@"\n')
        os.chmod(older, 0o755)
        cls.settings_a = {"guest_qemu": older}
        super().setUpClass()

    def test_the_guest_keeps_its_machine(self):
        self.go(there=True)
        self.assertEqual(qmp(self.b, self.guest.uuid, "qom-get", path="/machine", property="type"),
                         "pc-i440fx-6.2-machine")
        self.assert_content()


class Failures(LiveCase):
    """Slow enough to be met in the middle."""

    disks = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:30")]

    def begin_until(self, *states):
        """A move in one of these states; the task, and when it began."""
        begun = time.monotonic()
        task, watch = self.begin(bandwidth=str(16 * MIB))
        state = watch.wait_for_state(*states)
        self.assertIsNotNone(state, f"it ended before; seen: {watch.states()}")
        return task, begun

    def begin_until_paused(self):
        """The same at the switch, or soon after it: the pause is short, and may be over when we know of it."""
        log = SenderLog(self.a)
        self.addCleanup(log.close)
        begun = time.monotonic()
        task, _ = self.begin(bandwidth=str(16 * MIB))
        self.assertIsNotNone(log.wait_for_state("SWITCHING"), "it ended without a switch")
        return task, begun

    # --- cancel ---

    def cancel_in(self, state):
        task, begun = self.begin_until(state)
        asked = time.monotonic()
        self.a.session.task.cancel(task)
        failure = self.assert_stayed(task, begun, "TASK_CANCELLED")
        self.assertLess(time.monotonic() - asked, 20)
        self.assertEqual(failure.details, ["TASK_CANCELLED", task])

    if LONG:  # as cancel.py does it, which holds the move in that state
        def test_cancel_in_copying(self):
            self.cancel_in("COPYING")

        def test_cancel_in_converging(self):
            self.cancel_in("CONVERGING")

    def test_cancel_in_switching(self):
        """It may be over before the word arrives: then it is refused with the truth."""
        task, begun = self.begin_until_paused()
        try:
            self.a.session.task.cancel(task)
        except Failure as failure:
            self.assertEqual(failure.code, "OPERATION_NOT_ALLOWED", failure.details)
        self.assert_somewhere(begun)

    # --- the destination dies ---

    def test_the_destinations_guest_is_killed(self):
        """Once: the memory is sent again. Each time, as soon as it is there: the move fails."""
        _, begun = self.begin_until("CONVERGING")
        kill_all(wait_for("the destination's QEMU", self.b.guests, 20), signal.SIGKILL)
        self.assert_somewhere(begun)
        task, begun = self.begin_until("COPYING")
        killed = set()
        while self.a.session.task.get_status(task) == "pending":
            fresh = set(self.b.guests()) - killed
            kill_all(fresh, signal.SIGKILL)
            killed |= fresh
            time.sleep(0.005)
        self.assertTrue(killed)
        self.assert_stayed(task, begun)

    def test_the_destinations_agent_stays_away(self):
        task, begun = self.begin_until("CONVERGING" if LONG else "COPYING")
        self.b.kill()
        with self.assertRaises(Failure):
            wait_by_events(self.a.session, task, 60.0)
        self.guest.console.wait_for_tick(self.a)
        self.b.start()
        self.assertIs(self.where_it_ended(), self.a)
        self.assert_well(self.a, begun)

    def test_the_destinations_agent_restarts(self):
        for state in RUNNING if LONG else ("CONVERGING",):
            with self.subTest(state=state):
                _, begun = self.begin_until(state)
                self.b.kill()
                self.guest.console.wait_for_tick(self.a)
                self.b.start()
                self.assert_somewhere(begun)

    def test_the_destinations_tgtd_is_killed(self):
        """The copy goes on from its log."""
        task, begun = self.begin_until("COPYING")
        kill_all(wait_for("tgtd", self.b.tgtds, 10), signal.SIGKILL)
        wait_by_events(self.a.session, task, 120.0)
        self.assertEqual(self.assert_somewhere(begun), "moved")

    # --- the source dies ---

    def test_the_sources_agent_is_killed(self):
        """The guest is never left paused; the new agent ends the move one way or the other."""
        for state in RUNNING if LONG else ("SWITCHING",):
            with self.subTest(state=state):
                _, begun = self.begin_until_paused() if state == "SWITCHING" else self.begin_until(state)
                self.a.kill()
                self.guest.console.wait_for_any_tick()
                self.a.start()
                self.assert_somewhere(begun)

    def test_the_sources_guest_is_killed(self):
        """The VM is halted, and its disks hold what it had written."""
        task, _ = self.begin_until("CONVERGING")
        told = self.guest.status()
        kill_all(self.a.guests(), signal.SIGKILL)
        wait_for("the VM is halted", lambda: self.guest.state() == "Halted", 5)
        with self.assertRaises(Failure):
            wait_by_events(self.a.session, task, 60.0)
        self.assertIs(self.where_it_ended(), self.a)
        self.a.wait_for_no_leftovers(30)
        self.b.wait_for_no_leftovers(30)
        self.assertEqual(self.b.session.VDI.get_all(), [])
        # The last record of a disk with discards may be gone again.
        for path, last in zip(self.guest.disk_paths(), (told["disks"][0]["sequence"], 1)):
            verify_image("loose", path, last)


if LONG:
    class Sequential(Moves):
        disks = [(32 * MIB, "seq:100:64"), (32 * MIB, "hot:300"), (24 * MIB, "ext4:20")]

    class Heavy(Moves):
        disks = [(64 * MIB, "random:1500:4:0:48"), (16 * MIB, "mixed:300"), (24 * MIB, "ext4:50")]


if __name__ == "__main__":
    unittest.main(verbosity=2)
