#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VDI.pool_migrate: a disk moves to another SR of its host, halted or below a guest that runs and writes."""

import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, Move, Pool, digest, give, has_failed, wait_for  # noqa: E402
from liveguest import LiveGuest  # noqa: E402
from livemove import destroy  # noqa: E402
from monitor import Monitor  # noqa: E402
from xensession import Failure, wait_by_polling  # noqa: E402

DISK = 24 * MIB
PATTERN = "random:200"


def images(pool, sr):
    """The image files in the SR's folder."""
    pbd = pool.session.SR.get_PBDs(sr)[0]
    folder = pool.session.PBD.get_device_config(pbd)["location"]
    return sorted(name for name in os.listdir(folder) if name.endswith((".raw", ".qcow2")))


class Case(unittest.TestCase):
    settings = {}

    def setUp(self):
        self.a = self.enterContext(Pool("A", **self.settings))
        self.one, self.two = self.a.sr_create("one"), self.a.sr_create("two")
        self.addCleanup(self.show_log_of_a_failure)

    def show_log_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(100)

    def move(self, vdi, sr, **options):
        return self.a.session.VDI.pool_migrate(vdi, sr, options)

    def begin(self, vdi, sr):
        return self.a.session.Async.VDI.pool_migrate(vdi, sr, {})

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)

    def assert_in(self, vdi, sr):
        """In that SR alone, with nothing left of a move."""
        session = self.a.session
        self.assertEqual(session.VDI.get_SR(vdi), sr)
        self.assertEqual(session.VDI.get_current_operations(vdi), {})
        other = self.two if sr == self.one else self.one
        self.assertEqual((len(images(self.a, sr)), images(self.a, other)), (1, []))
        self.assertEqual(session.SR.get_virtual_allocation(sr), session.VDI.get_virtual_size(vdi))
        self.assertEqual(session.SR.get_virtual_allocation(other), "0")
        self.assertTrue(os.path.exists(self.a.vdi_path(vdi)))
        for vbd in session.VDI.get_VBDs(vdi):
            self.assertEqual(session.VM.get_current_operations(session.VBD.get_VM(vbd)), {})


class Halted(Case):

    def test_a_halted_disk_arrives_whole(self):
        session = self.a.session
        vdi = self.a.vdi_create(self.one, DISK)
        self.a.vdi_write(vdi, os.urandom(5 * MIB), 3 * MIB)
        before = digest(self.a.vdi_path(vdi))
        vm = self.a.vm_create("guest", [vdi])
        uuid = session.VDI.get_uuid(vdi)
        self.assertEqual(self.move(vdi, self.two), vdi)
        self.assert_in(vdi, self.two)
        self.assertEqual(session.VDI.get_uuid(vdi), uuid)
        self.assertEqual(digest(self.a.vdi_path(vdi)), before)
        self.assertEqual(self.a.disks_of(vm), [vdi])
        self.move(vdi, self.one)
        self.assert_in(vdi, self.one)
        self.assertEqual(digest(self.a.vdi_path(vdi)), before)

    def test_a_halted_qcow2_image_keeps_its_format(self):
        record = {"name_label": "disk", "SR": self.one, "virtual_size": str(DISK), "type": "user",
                  "sharable": False, "read_only": False, "other_config": {}, "sm_config": {"image-format": "qcow2"}}
        vdi = self.a.session.VDI.create(record)
        path = self.a.vdi_path(vdi)
        subprocess.run(["qemu-io", "-c", "write -P 7 1M 3M", path], check=True, stdout=subprocess.DEVNULL)
        with open(path, "rb") as file:
            before = file.read()
        self.move(vdi, self.two)
        self.assert_in(vdi, self.two)
        path = self.a.vdi_path(vdi)
        self.assertTrue(path.endswith(".qcow2"))
        with open(path, "rb") as file:
            after = file.read()
        self.assertEqual(after[:len(before)], before)
        self.assertLess(len(after) - len(before), 512)
        self.assertEqual(after[len(before):].strip(bytes(1)), b"")
        subprocess.run(["qemu-img", "check", "-q", path], check=True)

    def test_the_disk_of_a_snapshot_goes_elsewhere(self):
        session = self.a.session
        vdi = self.a.vdi_create(self.one, DISK)
        self.a.vdi_write(vdi, os.urandom(3 * MIB), MIB)
        vm = self.a.vm_create("guest", [vdi])
        snapshot = session.VM.snapshot(vm, "kept")
        kept, = self.a.disks_of(snapshot)
        before = digest(self.a.vdi_path(kept))
        self.a.vdi_write(vdi, os.urandom(MIB))
        self.assertEqual(self.move(kept, self.two), kept)
        self.assertEqual((session.VDI.get_SR(kept), session.VDI.get_SR(vdi)), (self.two, self.one))
        self.assertEqual((session.VDI.get_snapshot_of(kept), session.VDI.get_read_only(kept)), (vdi, True))
        self.assertEqual((len(images(self.a, self.one)), len(images(self.a, self.two))), (1, 1))
        self.assertEqual(digest(self.a.vdi_path(kept)), before)
        self.assertEqual(session.VM.get_current_operations(snapshot), {})
        session.VM.revert(snapshot)
        self.assertEqual(digest(self.a.vdi_path(vdi)), before)
        self.assertEqual(session.VDI.get_SR(vdi), self.one)
        self.a.wait_for_no_leftovers()

    def test_what_cannot_be_is_refused(self):
        vdi = self.a.vdi_create(self.one, DISK)
        self.refused("OPERATION_NOT_ALLOWED", self.move, vdi, self.one)
        self.refused("HANDLE_INVALID", self.move, "OpaqueRef:none", self.two)
        self.refused("HANDLE_INVALID", self.move, vdi, "OpaqueRef:none")
        with self.assertRaises(Failure) as raised:
            self.move(vdi, self.two, **{"dest-img-format": "vhd"})
        self.assertEqual(raised.exception.code, "INVALID_VALUE")
        self.a.session.PBD.unplug(self.a.session.SR.get_PBDs(self.two)[0])
        self.refused("SR_NOT_ATTACHED", self.move, vdi, self.two)
        self.assert_in(vdi, self.one)

    @unittest.skipIf(os.geteuid() != 0, "only root can mount a small file system")
    def test_a_target_that_is_full_leaves_the_disk_where_it_was(self):
        folder = self.a.path("small")
        os.mkdir(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "none", folder], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=False)
        small = self.a.sr_create("small", folder=folder)
        vdi = self.a.vdi_create(self.one, DISK)
        self.a.vdi_write(vdi, os.urandom(8 * MIB))
        self.refused("SR_BACKEND_FAILURE_44", self.move, vdi, small)
        self.assertEqual(images(self.a, small), [])
        self.assert_in(vdi, self.one)


class Slow(Case):
    settings = {"migration_bandwidth": "4MiB"}

    def begin_slowly(self, vdi):
        task = self.begin(vdi, self.two)
        wait_for("the copy has begun", lambda: len(images(self.a, self.two)) == 1, 20)
        return task

    def test_cancelled_it_leaves_everything_as_it_was(self):
        vdi = self.a.vdi_create(self.one, DISK)
        self.a.vdi_write(vdi, os.urandom(DISK))
        vm = self.a.vm_create("guest", [vdi])
        session = self.a.session
        task = self.begin_slowly(vdi)
        self.assertEqual(list(session.VDI.get_current_operations(vdi).values()), ["mirror"])
        self.refused("OTHER_OPERATION_IN_PROGRESS", self.move, vdi, self.two)
        self.refused("VDI_IN_USE", session.VDI.destroy, vdi)
        self.refused("OTHER_OPERATION_IN_PROGRESS", session.VM.start, vm, False, False)
        session.task.cancel(task)
        self.refused("TASK_CANCELLED", wait_by_polling, session, task)
        self.assert_in(vdi, self.one)

    def test_stopped_in_the_middle_it_is_undone_at_once(self):
        vdi = self.a.vdi_create(self.one, 2 * DISK)
        self.a.vdi_write(vdi, os.urandom(2 * DISK))
        self.begin_slowly(vdi)
        begun = time.monotonic()
        self.a.stop()
        self.assertLess(time.monotonic() - begun, 2 * DISK / (4 * MIB))
        self.a.start()
        self.assert_in(vdi, self.one)

    def test_killed_in_the_middle_it_is_undone(self):
        vdi = self.a.vdi_create(self.one, DISK)
        self.a.vdi_write(vdi, os.urandom(DISK))
        before = digest(self.a.vdi_path(vdi))
        self.begin_slowly(vdi)
        self.a.kill()
        self.a.start()
        self.assert_in(vdi, self.one)
        self.assertEqual(digest(self.a.vdi_path(vdi)), before)


class OfGuest(Case):
    """One guest for all tests, since it takes a while to boot; in which SR its disk is changes from one to the next."""

    guest = None

    @classmethod
    def setUpClass(cls):
        linuxguest.kernel()
        cls.a = cls.enterClassContext(Pool("A", **cls.settings))
        cls.one, cls.two = cls.a.sr_create("one"), cls.a.sr_create("two")
        cls.addClassCleanup(cls.forget_guest)

    @classmethod
    def forget_guest(cls):
        if cls.guest:
            cls.guest.close()
            if cls.a.session and cls.a.vm_by_uuid(cls.guest.uuid):
                destroy(cls.a, cls.guest.vm)
        cls.guest = None

    def setUp(self):
        self.addCleanup(self.show_log_of_a_failure)
        if not self.guest_is_well():
            self.forget_guest()
            type(self).guest = LiveGuest(self.a, "live", [(DISK, PATTERN)], sr=self.one).start()
        self.vdi = self.a.disks_of(self.guest.vm)[0]
        self.pid = self.a.guests()

    def guest_is_well(self):
        return self.guest and self.guest.pool is self.a and not self.guest.console.complaints() and \
            self.guest.state() == "Running"

    def elsewhere(self):
        """The SR in which the disk is not."""
        return self.two if self.a.session.VDI.get_SR(self.vdi) == self.one else self.one

    def assert_content(self):
        self.guest.verify_outside()
        self.guest.command("go")

    def assert_runs(self):
        self.assertEqual(self.a.guests(), self.pid)
        self.assertEqual(self.guest.state(), "Running")
        self.guest.console.wait_for_tick(self.a)
        self.guest.next_status()

    def assert_nothing_in_qemu(self):
        """One file below the disk, and no bitmap."""
        with Monitor(self.a, self.guest.uuid) as monitor:
            nodes = monitor.call("query-named-block-nodes")["return"]
            fdsets = monitor.call("query-fdsets")["return"]
        self.assertEqual(len([node for node in nodes if node["node-name"].startswith("d0-file")]), 1)
        self.assertEqual([node["node-name"] for node in nodes if node.get("dirty-bitmaps")], [])
        self.assertLessEqual(len(fdsets), 1)


class LiveSlow(OfGuest):
    settings = {"migration_bandwidth": "256KiB"}

    def test_cancelled_the_guest_goes_on_as_it_was(self):
        session = self.a.session
        task = self.begin(self.vdi, self.two)
        wait_for("the copy has begun", lambda: len(images(self.a, self.two)) == 1, 20)
        self.refused("OTHER_OPERATION_IN_PROGRESS", session.VM.hard_shutdown, self.guest.vm)
        session.task.cancel(task)
        self.refused("TASK_CANCELLED", wait_by_polling, session, task)
        self.assert_in(self.vdi, self.one)
        self.assert_runs()
        self.assert_nothing_in_qemu()
        self.guest.verify_inside()
        self.guest.verify_outside()


class Live(OfGuest):

    def assert_confined(self, folder):
        """QEMU itself cannot open what is there."""
        path = os.path.join(folder, "other")
        with open(path, "wb") as file:
            file.truncate(MIB)
        give(path)
        with Monitor(self.a, self.guest.uuid) as monitor:
            answer = monitor.call("blockdev-add", driver="file", filename=path, **{"node-name": "x"})
        self.assertIn("Permission denied", answer["error"]["desc"])
        os.remove(path)

    def test_a_guest_that_writes_goes_on_in_the_other_sr(self):
        for _ in range(3):
            sr = self.elsewhere()
            self.move(self.vdi, sr)
            self.assert_in(self.vdi, sr)
            self.assert_runs()
            self.guest.verify_inside()
            self.assert_nothing_in_qemu()
            self.assert_confined(os.path.dirname(self.a.vdi_path(self.vdi)))
        self.assert_content()

    def test_moved_the_guest_can_still_go_to_another_pool(self):
        b = self.enterContext(Pool("B"))
        sr, network = b.sr_create(), b.network_create()
        self.guest.console.pools.append(b)
        self.move(self.vdi, self.elsewhere())
        Move(self.a, b, self.guest.vm, sr, network).send()
        self.guest.now_in(b).console.wait_for_tick(b)
        self.guest.verify_inside()
        self.guest.verify_outside()
        self.a.wait_for_no_leftovers()

    def begin_elsewhere(self):
        self.begin(self.vdi, self.elsewhere())

    def assert_survived(self):
        """A killed agent is back."""
        self.a.start()
        self.assert_in(self.vdi, self.a.session.VDI.get_SR(self.vdi))
        self.assert_runs()
        self.assert_nothing_in_qemu()
        self.guest.verify_inside()

    def test_killed_during_the_copy_the_disk_is_where_it_was_or_moved(self):
        self.begin_elsewhere()
        time.sleep(0.05)
        self.a.kill()
        self.assert_survived()
        self.assert_content()

    def test_killed_in_the_pause_the_guest_goes_on_with_one_disk(self):
        for delay in (0, 0.01, 0.02):
            with Monitor(self.a, self.guest.uuid) as monitor:
                self.begin_elsewhere()
                monitor.wait_for_event("STOP")
            time.sleep(delay)
            self.a.kill()
            self.assert_survived()
        self.assert_content()


if __name__ == "__main__":
    unittest.main()
