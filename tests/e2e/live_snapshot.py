#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a guest that runs and writes: all its disks at one moment, all or nothing, unnoticed by the guest."""

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, NULL, Pool, has_failed, wait_for  # noqa: E402
from monitor import Monitor  # noqa: E402
from shellguest import Guest  # noqa: E402
from xensession import Failure, wait_by_polling  # noqa: E402

DISK = 16 * MIB
DATA = 6 * MIB  # of each disk, behind what the guest writes
IMAGES = ("raw", "qcow2")
COUNTER = 4 * MIB
# A number to the first disk, then to the second; and, so that there is something to follow, blocks here and there.
COUNT = ("(n=0; while :; do n=$((n+1)); for d in a b; do printf %08d $n | dd of=/dev/vd$d bs=512 seek=8192 "
         "conv=sync,fsync 2>/dev/null || echo guest: write fail''ed; done; done) &")
NOISE = ("(k=0; while :; do k=$(((k*5+7)%64)); dd if=/dev/urandom of=/dev/vdb bs=4k count=2 seek=$((1100+k*2)) "
         "conv=notrunc,fsync 2>/dev/null || echo guest: write fail''ed; done) &")


def is_qcow2(path):
    return path.endswith(".qcow2")


def runs(path):
    """Where the disk's content is in a qcow2 file, which a guest may have."""
    text = subprocess.run(["qemu-img", "map", "-U", "-f", "qcow2", "--output=json", path], check=True, stdout=subprocess.PIPE).stdout
    return [run for run in json.loads(text) if run["data"] and not run["zero"]]


def read(path, length, offset):
    """What is on the disk, and on the host's storage: not what a QEMU may have in memory."""
    with open(path, "rb") as file:
        if not is_qcow2(path):
            return os.pread(file.fileno(), length, offset)
        data = bytearray(length)
        for run in runs(path):
            begin, end = max(run["start"], offset), min(run["start"] + run["length"], offset + length)
            if begin < end:
                data[begin - offset:end - offset] = os.pread(file.fileno(), end - begin, run["offset"] + begin - run["start"])
        return bytes(data)


@functools.cache
def place_of_counter(path):
    """Where it is written in place; None: it never was."""
    for run in runs(path):
        if run["start"] <= COUNTER < run["start"] + run["length"]:
            return run["offset"] + COUNTER - run["start"]
    return None


def counter(path):
    place = place_of_counter(path) if is_qcow2(path) else COUNTER
    if place is None:
        place_of_counter.cache_clear()
        return 0
    with open(path, "rb") as file:
        return int(os.pread(file.fileno(), 8, place).strip(b"\0") or b"0")


def content(path):
    return hashlib.sha256(read(path, DISK, 0)).hexdigest()


class LiveSnapshot(unittest.TestCase):
    """One guest for all, with a raw disk and a qcow2 one: each test leaves it running, and nothing else."""

    @classmethod
    def setUpClass(cls):
        linuxguest.kernel()
        cls.a = cls.enterClassContext(Pool("A", points=True, migration_bandwidth="6MiB"))
        cls.small = cls.a.path("small")
        os.mkdir(cls.small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=777", "none", cls.small], check=True)
        cls.addClassCleanup(subprocess.run, ["umount", "-l", cls.small], check=False)
        cls.one, cls.two = cls.a.sr_create("one"), cls.a.sr_create("two", folder=cls.small)
        cls.disks = [cls.a.vdi_create(sr, DISK, image=image) for sr, image in zip((cls.one, cls.two), IMAGES)]
        cls.a.vdi_write(cls.disks[0], os.urandom(DATA), DISK - DATA)
        # The guest's own writes need no room there.
        full = cls.a.path("full.raw")
        with open(full, "wb") as file:
            file.write(bytes(DISK - DATA) + os.urandom(DATA))
        subprocess.run(["qemu-img", "convert", "-n", "-S", "0", "-f", "raw", "-O", "qcow2", full, cls.a.vdi_path(cls.disks[1])], check=True)
        cls.guest = Guest(cls.a, "live", vdis=cls.disks)
        cls.vm = cls.guest.vm

    def setUp(self):
        self.addCleanup(self.show_log_of_a_failure)
        self.a.points.clear()
        self.session = self.a.session
        if self.guest.state() == "Halted":
            self.guest.start().wait_for_beat()
            for line in (COUNT, NOISE):
                self.guest.type(line)
            self.wait_for_writes()

    def show_log_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(100)

    def wait_for_writes(self, path=None):
        seen = set()
        path = path or self.path(1)
        wait_for("the guest writes", lambda: seen.add(counter(path)) or len(seen) > 3, 20, 0.01)

    def path(self, i):
        return self.a.vdi_path(self.disks[i])

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        return raised.exception.details[1:]

    def assert_goes_on(self, snapshots=0):
        """As if nothing had been."""
        session = self.session = self.a.session
        self.assertEqual(self.guest.state(), "Running")
        self.assertEqual(len(session.VM.get_snapshots(self.vm)), snapshots)
        self.assertEqual(len(session.VDI.get_all()), 2 + 2 * snapshots)
        for vdi in self.disks:
            self.assertEqual(session.VDI.get_current_operations(vdi), {})
        self.assertIn("pool_migrate", session.VM.get_allowed_operations(self.vm))
        self.wait_for_writes()
        self.assertNotIn("write failed", self.guest.console())
        self.assertNotIn("I/O error", self.guest.console())
        with Monitor(self.a, self.guest.uuid) as monitor:
            monitor.assert_untouched(self)
            self.assertEqual(monitor.call("query-block-exports")["return"], [])
        self.a.wait_for_no_leftovers(5, running=[self.guest.uuid])

    def assert_one_moment(self, snapshot):
        paths = [self.a.vdi_path(vdi) for vdi in self.a.disks_of(snapshot)]
        first, second = (counter(path) for path in paths)
        self.assertGreater(second, 0)
        self.assertIn(first - second, (0, 1))
        for i, path in enumerate(paths):
            self.assertEqual(read(path, DATA, DISK - DATA), read(self.path(i), DATA, DISK - DATA))
            self.assertLess(os.stat(path).st_blocks * 512, DATA + 4 * MIB)
            self.assertTrue(path.endswith(IMAGES[i]), path)
        subprocess.run(["qemu-img", "check", "-q", paths[1]], check=True)
        return first

    def remove(self, snapshot):
        disks = self.a.disks_of(snapshot)
        self.session.VM.destroy(snapshot)
        for vdi in disks:
            self.session.VDI.destroy(vdi)

    def begin(self):
        """A snapshot under way."""
        task = self.session.Async.VM.snapshot(self.vm, "new")
        wait_for("it has come some way", lambda: float(self.session.task.get_progress(task)) > 0, 20)
        return task

    # --- what it is ---

    def test_both_disks_are_of_one_moment(self):
        session = self.session
        before = counter(self.path(0))
        snapshot = session.VM.snapshot(self.vm, "kept")
        after = counter(self.path(0))
        kept = self.assert_one_moment(snapshot)
        self.assertLess(before, kept)
        self.assertLessEqual(kept, after)
        record = session.VM.get_record(snapshot)
        self.assertEqual((record["power_state"], record["is_a_snapshot"], record["snapshot_of"]), ("Halted", True, self.vm))
        self.assertEqual(record["snapshot_info"]["power-state-at-snapshot"], "Running")
        self.assertEqual((record["domid"], record["resident_on"], record["consoles"]), ("-1", NULL, []))
        self.assertEqual(session.VM_metrics.get_memory_actual(record["metrics"]), "0")
        for vbd in record["VBDs"]:
            self.assertFalse(session.VBD.get_currently_attached(vbd))
        state = [content(self.a.vdi_path(vdi)) for vdi in self.a.disks_of(snapshot)]
        self.assert_goes_on(1)
        self.assertEqual([content(self.a.vdi_path(vdi)) for vdi in self.a.disks_of(snapshot)], state)
        session.VM.hard_shutdown(self.vm)
        session.VM.revert(snapshot)
        self.assertEqual([content(self.path(i)) for i in (0, 1)], state)
        self.assertEqual([session.VDI.get_sm_config(vdi).get("image-format", "raw") for vdi in self.disks], list(IMAGES))
        self.remove(snapshot)

    def test_of_one_that_is_paused_and_of_one_disk(self):
        session = self.session
        kept = session.VDI.snapshot(self.disks[1])
        self.assertEqual((session.VDI.get_snapshot_of(kept), session.VDI.get_read_only(kept)), (self.disks[1], True))
        self.assertGreater(counter(self.a.vdi_path(kept)), 0)
        session.VDI.destroy(kept)
        session.VM.pause(self.vm)
        now = counter(self.path(0))
        snapshot = session.VM.snapshot(self.vm, "paused", [self.disks[1]])
        self.assertEqual(self.guest.state(), "Paused")
        self.assertEqual([session.VDI.get_snapshot_of(vdi) for vdi in self.a.disks_of(snapshot)], self.disks[:1])
        self.assertEqual(counter(self.a.vdi_path(self.a.disks_of(snapshot)[0])), now)
        self.assertEqual(session.VM.get_snapshot_info(snapshot)["power-state-at-snapshot"], "Paused")
        self.remove(snapshot)
        session.VM.unpause(self.vm)
        self.refused("HANDLE_INVALID", session.VM.snapshot, self.vm, "new", ["OpaqueRef:none"])
        for call, *args in ((session.VM.clone, self.vm, "new"), (session.VM.revert, self.vm)):
            self.refused("VM_BAD_POWER_STATE", call, *args)
        self.refused("VDI_IN_USE", session.VDI.clone, self.disks[0])
        self.assert_goes_on()

    # --- what ends it ---

    def test_cancelled_and_what_it_keeps_out(self):
        session = self.session
        task = self.begin()
        self.assertEqual(list(session.VM.get_current_operations(self.vm).values()), ["snapshot"])
        for operation in ("migrate_send", "pool_migrate", "snapshot", "clean_shutdown"):
            self.assertNotIn(operation, session.VM.get_allowed_operations(self.vm))
        for call, *args in ((session.VM.hard_shutdown, self.vm), (session.VM.snapshot, self.vm, "second"),
                            (session.VDI.pool_migrate, self.disks[0], self.two, {}),
                            (session.VM.pool_migrate, self.vm, self.a.host, {})):
            self.refused("OTHER_OPERATION_IN_PROGRESS", call, *args)
        session.task.cancel(task)
        self.refused("TASK_CANCELLED", wait_by_polling, session, task)
        self.assert_goes_on()
        move = session.Async.VDI.pool_migrate(self.disks[0], self.two, {})
        wait_for("it moves", lambda: session.VM.get_current_operations(self.vm), 10)
        self.refused("OTHER_OPERATION_IN_PROGRESS", session.VM.snapshot, self.vm, "new")
        self.refused("OTHER_OPERATION_IN_PROGRESS", session.VDI.snapshot, self.disks[0])
        session.task.cancel(move)
        self.refused("TASK_CANCELLED", wait_by_polling, session, move)
        self.assert_goes_on()

    def test_an_agent_that_dies_leaves_nothing_and_nobody_stopped(self):
        self.begin()
        self.a.kill()
        self.a.start()
        self.assert_goes_on()
        # While the guest is stopped, by both ways in and out.
        for point in ("qmp.stop.before", "qmp.stop.after", "qmp.cont.before", "qmp.cont.after", "copy.commit.before"):
            self.a.points.arm(point, "kill")
            path = self.path(1)
            self.session.Async.VM.snapshot(self.vm, "new")
            self.a.killed()
            self.assert_runs_by_itself(path)
            self.a.start()
            self.assert_goes_on()
        self.begin()
        self.a.stop()
        self.a.start()
        self.assert_goes_on()

    def assert_runs_by_itself(self, path):
        """With nobody there but its watchdog, which has the monitor as long as it is there."""
        begun = time.monotonic()
        with Monitor(self.a, self.guest.uuid) as monitor:
            self.assertEqual(monitor.call("query-status")["return"]["status"], "running")
        self.assertLess(time.monotonic() - begun, 2)
        self.wait_for_writes(path)

    def test_without_its_watchdog_it_runs_when_the_agent_is_back(self):
        self.a.points.arm("qmp.cont.before", "delay 5000")
        self.session.Async.VM.snapshot(self.vm, "new")
        wait_for("it is stopped", lambda: self.a.points.passed("qmp.cont.before"), 20, 0.01)
        for pid in self.a.watchdogs():
            os.kill(pid, signal.SIGKILL)
        self.a.kill()
        self.a.start()
        self.assert_goes_on()

    def test_an_agent_that_stands_still_does_not_hold_it(self):
        before = len(self.a.log())
        self.a.points.arm("qmp.cont.before", "delay 1500")
        self.session.VM.destroy(self.session.VM.snapshot(self.vm, "new"))
        self.assertEqual(self.a.log()[before:].count("COPY-INSTANT"), 2)
        for vdi in set(self.session.VDI.get_all()) - set(self.disks):
            self.session.VDI.destroy(vdi)
        self.assert_goes_on()

    def test_what_fails_is_undone(self):
        task = self.begin()
        wait_for("the qcow2 image is written", self.a.image_servers, 20, 0.01)
        for pid in self.a.image_servers():
            os.kill(pid, signal.SIGKILL)
        self.refused("INTERNAL_ERROR", wait_by_polling, self.session, task)
        self.assert_goes_on()
        for point, rule in (("qmp.transaction.after", "error EREMOTEIO"), ("qmp.stop.before", "error EREMOTEIO"),
                            ("qmp.cont.before", "error EREMOTEIO")):
            self.a.points.arm(point, rule)
            self.refused("INTERNAL_ERROR", self.session.VM.snapshot, self.vm, "new")
            self.assertGreater(self.a.points.passed(point), 0, point)
            self.a.points.clear()
            self.assert_goes_on()

    def test_a_target_that_fills_up_is_not_the_guests_trouble(self):
        task = self.begin()
        filler = os.path.join(self.small, "filler")
        with self.assertRaises(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(MIB))
        self.refused("SR_BACKEND_FAILURE_44", wait_by_polling, self.session, task)
        self.wait_for_writes()
        os.remove(filler)
        self.assert_goes_on()

    def test_a_guest_that_ends_takes_its_snapshot_along(self):
        task = self.begin()
        pid, = self.a.guests()
        os.kill(pid, signal.SIGKILL)
        text, = self.refused("INTERNAL_ERROR", wait_by_polling, self.session, task)
        self.assertIn("The guest ended", text)
        wait_for("the VM is halted", lambda: self.guest.state() == "Halted", 10)
        self.assertEqual(len(self.session.VDI.get_all()), 2)
        self.a.wait_for_no_leftovers(5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
