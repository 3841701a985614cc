#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies and snapshots of what a member has, asked for at the coordinator: done there, cancelled there, gone there."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, NULL, Pool, give, has_failed, wait_for  # noqa: E402
from xensession import Failure, wait_by_polling  # noqa: E402

DISK = 4 * MIB
MEMORY = 64 * MIB
IMAGES = ("raw", "qcow2")


class Copies(unittest.TestCase):
    """A guest runs at B, all its disks there. Each test leaves it so."""

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A"))
        cls.b = cls.enterClassContext(Pool("B", migration_bandwidth="2MiB"))
        cls.one, cls.two = cls.b.sr_create("one"), cls.b.sr_create("two")
        cls.disks = [cls.b.vdi_create(cls.one, DISK, image=image) for image in IMAGES]
        cls.spare = cls.b.vdi_create(cls.one, DISK)
        content = cls.b.path("content")
        with open(content, "wb") as file:
            file.write(os.urandom(DISK))
        for vdi, image in zip([*cls.disks, cls.spare], [*IMAGES, "raw"]):
            path = cls.b.vdi_path(vdi)
            subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", image, content, path], check=True)
            give(path)
        cls.content = content
        cls.vm = cls.b.vm_create("guest", cls.disks)
        cls.b.session.VM.set_memory_limits(cls.vm, *[str(MEMORY)] * 4)
        cls.b.join(cls.a)
        cls.uuid = cls.a.session.VM.get_uuid(cls.vm)
        cls.vdis = set(cls.a.session.VDI.get_all())
        cls.folders = {os.path.dirname(cls.b.vdi_path(vdi)) for vdi in cls.vdis}
        cls.folders.add(cls.a.session.PBD.get_device_config(cls.a.session.SR.get_PBDs(cls.two)[0])["location"])
        wait_for("B is live", lambda: cls.a.session.host_metrics.get_live(cls.a.session.host.get_metrics(cls.b.host)), 20)
        cls.a.session.VM.start(cls.vm, False, False)

    def setUp(self):
        self.addCleanup(self.show_logs_of_a_failure)
        # Each is called at the coordinator, and is B's work.
        self.calls = {
            "VM.snapshot": (self.vm, "new"),
            "VDI.snapshot": (self.disks[1],),
            "VDI.copy": (self.spare, self.two),
        }

    @property
    def session(self):
        return self.a.session

    def call(self, name):
        kind, method = name.split(".")
        return getattr(getattr(self.session.Async, kind), method)(*self.calls[name])

    def show_logs_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(40)
            self.b.show_log(80)

    def begin(self, name):
        """It copies, and takes a second more at least."""
        task = self.call(name)
        wait_for(f"{name} has begun", self.new_files, 20, 0.02)
        return task

    def new_files(self):
        """What it has written of files that no VDI names yet."""
        paths = [os.path.join(folder, name) for folder in self.folders for name in os.listdir(folder)]
        return len(paths) > len(self.vdis) and all(os.stat(path).st_blocks for path in paths)

    def assert_as_before(self):
        self.assertEqual(self.session.VM.get_power_state(self.vm), "Running")
        self.assertEqual(self.session.VM.get_resident_on(self.vm), self.b.host)
        self.assertEqual(set(self.session.VDI.get_all()), self.vdis)
        self.assertEqual(self.session.VM.get_snapshots(self.vm), [])
        self.assertEqual(self.session.VM.get_current_operations(self.vm), {})
        for vdi in self.vdis:
            self.assertEqual(self.session.VDI.get_current_operations(vdi), {})
        self.b.wait_for_no_leftovers(10, running=[self.uuid])
        self.a.wait_for_no_leftovers(5)

    def assert_copied(self, vdi):
        path = self.b.vdi_path(vdi)
        self.assertTrue(path.startswith(self.b.root))
        image = "qcow2" if path.endswith(".qcow2") else "raw"
        subprocess.run(["qemu-img", "compare", "-q", "-f", image, "-F", "raw", path, self.content], check=True)
        self.session.VDI.destroy(vdi)

    def test_they_are_done_where_the_disks_are(self):
        session = self.session
        snapshot = session.VM.snapshot(self.vm, "new")
        record = session.VM.get_record(snapshot)
        self.assertEqual((record["snapshot_of"], record["resident_on"]), (self.vm, NULL))
        disks = self.a.disks_of(snapshot)
        self.assertEqual([session.VDI.get_snapshot_of(vdi) for vdi in disks], self.disks)
        session.VM.destroy(snapshot)
        for vdi in disks:
            self.assert_copied(vdi)
        for name in ("VDI.snapshot", "VDI.copy"):
            self.assert_copied(wait_by_polling(session, self.call(name)))
        self.assert_as_before()

    def test_they_are_cancelled_at_the_coordinator(self):
        for name in self.calls:
            with self.subTest(name):
                task = self.begin(name)
                self.session.task.cancel(task)
                with self.assertRaises(Failure) as raised:
                    wait_by_polling(self.session, task)
                self.assertEqual(raised.exception.code, "TASK_CANCELLED")
                self.assertEqual(self.session.task.get_status(task), "cancelled")
                self.assert_as_before()

    def test_a_member_that_dies_leaves_nothing(self):
        for name in self.calls:
            with self.subTest(name):
                task = self.begin(name)
                self.b.kill()
                self.assertEqual(self.session.task.get_status(task), "pending")
                self.b.start()
                wait_for("the task has ended", lambda: self.session.task.get_status(task) != "pending", 40)
                self.assertEqual(self.session.task.get_status(task), "failure")
                self.assert_as_before()

    def test_a_coordinator_that_dies_loses_nothing(self):
        for name in self.calls:
            with self.subTest(name):
                task = self.begin(name)
                self.b._forget_session()
                self.a.kill()
                self.a.start()
                self.b.session = self.session.other()
                wait_for("the task has ended", lambda: self.session.task.get_status(task) != "pending", 60)
                self.remove_new()
                self.assert_as_before()

    def remove_new(self):
        """It may have been done, or not, but not by half."""
        made = set(self.session.VDI.get_all()) - self.vdis
        snapshots = self.session.VM.get_snapshots(self.vm)
        self.assertIn((len(made), len(snapshots)), ((0, 0), (1, 0), (2, 1)))
        for snapshot in snapshots:
            self.session.VM.destroy(snapshot)
        for vdi in made:
            self.assert_copied(vdi)


if __name__ == "__main__":
    unittest.main(verbosity=2)
