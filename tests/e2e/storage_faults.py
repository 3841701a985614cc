#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad sectors, failed flushes, and databases that cannot be written."""

import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, Failure, Pool, give, wait_for  # noqa: E402
from livemove import newest_migration  # noqa: E402
from slowmove import DISK, SlowMove  # noqa: E402
from xensession import wait_by_polling  # noqa: E402


class Disks(SlowMove):
    settings = {"points": True}

    def setUp(self):
        super().setUp()
        for pool in (self.a, self.b):
            pool.configure(migration_bandwidth="0")
            pool.restart()

    def test_a_bad_sector_of_the_source(self):
        """The move fails and says where; the source is as it was, and can be moved once it reads again."""
        path = self.a.vdi_path(self.a.disks_of(self.vm)[0])
        self.a.points.arm("file.read", f"error EIO after={DISK // 2} always")
        with self.assertRaises(Failure) as raised:
            self.move().send()
        self.assertGreater(self.a.points.passed("file.read"), DISK // 2)
        self.assertEqual(raised.exception.code, "INTERNAL_ERROR")
        text = raised.exception.details[1]
        self.assertRegex(text, rf"disk 0, source: read of \d+ bytes at \d+ of {path}: Input/output error")
        self.assertIn("on the source as before", text)
        self.assertIn("is at the source with its disks, Halted", newest_migration(self.a)["outcome"])
        self.a.points.clear()
        self.assert_untouched()
        self.move().send()
        self.assert_moved()

    def assert_bad_image(self, rule):
        self.b.points.arm("export.fsync", rule)
        with self.assertRaises(Failure) as raised:
            self.move().send()
        self.assertIn("could not be flushed: the image is bad", raised.exception.details[1])
        self.assertEqual(self.b.points.passed("export.fsync"), 1)
        self.assertRegex(self.b.log(), r"MIG-STATE .* from=RECEIVING event=failed to=ABORTING")
        self.assertNotRegex(self.b.log(), r"MIG-STATE .*SEALED")
        self.b.points.clear()
        self.assert_untouched()

    def test_a_flush_that_fails_at_the_seal(self):
        """The kernel tells of a failed write once: a second fsync would succeed, and is not asked for."""
        self.assert_bad_image("error EIO")
        self.assert_bad_image("error EIO always")
        self.move().send()
        self.assert_moved()


class Databases(SlowMove):
    settings = {"points": True}

    def assert_says(self, text, pool, name, cause):
        self.assertIn(f"database {pool.path('state', name)}: ", text)
        self.assertIn(cause, text)

    def refused(self, pool, name, cause, call):
        with self.assertRaises(Failure) as raised:
            call()
        self.assertEqual(raised.exception.code, "INTERNAL_ERROR")
        self.assert_says(raised.exception.details[1], pool, name, cause)

    def test_new_work_is_refused_while_pool_db_cannot_be_written(self):
        vm = self.a.session.VM
        for error, cause in (("ENOSPC", "free space on its file system"), ("EROFS", "how the file system is mounted"),
                             ("EIO", "see the kernel's log")):
            with self.subTest(error=error):
                since = len(self.a.log())
                self.a.points.arm("db.pool.commit", f"error {error} always")
                self.refused(self.a, "pool.db", cause, lambda: self.a.vdi_create(self.sr_a, MIB))
                self.refused(self.a, "pool.db", cause, lambda: vm.start(self.vm, False, False))
                self.refused(self.a, "pool.db", cause, self.move().send)
                self.assertEqual(self.a.guests(), [])
                log = self.a.log()[since:]
                self.assertEqual(log.count("DB_UNWRITABLE"), 1)
                self.a.points.clear()
                self.assert_untouched()
                vdi = self.a.vdi_create(self.sr_a, MIB)
                self.a.session.VDI.destroy(vdi)
                self.assertIn("DB_WRITABLE", self.a.log()[since:])

    def test_new_work_is_refused_while_agent_db_cannot_be_written(self):
        full = "free space on its file system"
        self.a.points.arm("db.agent.commit", "error ENOSPC always")
        self.refused(self.a, "agent.db", full, self.move().send)
        self.refused(self.a, "agent.db", full, lambda: self.a.session.VM.start(self.vm, False, False))
        self.assertEqual(self.a.guests(), [])
        self.a.points.clear()
        self.assert_untouched()

    def test_a_destination_that_cannot_write(self):
        for name in ("agent", "pool"):
            with self.subTest(database=name):
                move = self.move()
                self.b.points.arm(f"db.{name}.commit", "error ENOSPC always")
                with self.assertRaises(Failure) as raised:
                    move.send()
                self.assert_says(repr(raised.exception.details), self.b, f"{name}.db", "free space")
                self.b.points.clear()
                self.assert_untouched()

    def test_a_move_waits_until_it_can_be_stored(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.points.arm("db.agent.commit", "error ENOSPC always")
        wait_for("a state cannot be stored", lambda: "MIG-STORE" in self.a.log(), 30)
        self.assertEqual(self.a.session.VM.get_power_state(self.vm), "Halted")
        self.assertEqual(self.a.session.task.get_status(task), "pending")
        self.a.points.clear()
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()


class FullFileSystem(unittest.TestCase):
    """The file system of state_dir is full, for real, while a guest runs."""

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a tmpfs needs root")
        self.a = Pool("A")
        self.addCleanup(self.a.remove)
        state, before = self.a.path("state"), self.a.path("before")
        os.rename(state, before)
        os.mkdir(state, 0o750)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0750", "tmpfs", state], check=False,
                          capture_output=True).returncode != 0:
            self.skipTest("mounting a tmpfs is not allowed here")
        self.addCleanup(subprocess.run, ["umount", "--lazy", state], check=True)
        self.addCleanup(self.a.stop)
        subprocess.run(["cp", "-a", f"{before}/.", state], check=True)
        shutil.rmtree(before)
        give(state)

    def fill(self):
        path = self.a.path("state", ".filler")
        with open(path, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        return path

    def create_until_refused(self, sr):
        """A log of SQLite's that is there already takes some more."""
        for _ in range(100):
            try:
                self.a.session.VDI.set_name_description(self.a.vdi_create(sr, MIB), "x" * (256 << 10))
            except Failure as failure:
                return failure
        self.fail("everything could be stored in a file system that is full")

    def test_a_guest_runs_on_and_work_goes_on_when_there_is_room(self):
        linuxguest.kernel()
        self.a.start()
        sr = self.a.sr_create()
        vm = self.a.vm_create("guest", [self.a.vdi_create(sr, MIB)], **linuxguest.boot_fields(self.a.root))
        other = self.a.vm_create("other", [self.a.vdi_create(sr, MIB)], **linuxguest.boot_fields(self.a.root))
        for each in (vm, other):
            self.a.session.VM.set_memory_limits(each, *[str(96 * MIB)] * 4)
        self.a.session.VM.start(vm, False, False)
        guest, = self.a.guests()
        filler = self.fill()
        failure = self.create_until_refused(sr)
        self.assertEqual(failure.code, "INTERNAL_ERROR")
        self.assertIn("database or disk is full", failure.details[1])
        self.assertIn("free space on its file system", failure.details[1])
        self.assertIn("DB_UNWRITABLE", self.a.log())
        self.assertEqual(self.a.guests(), [guest])
        self.assertEqual(self.a.session.VM.get_power_state(vm), "Running")
        os.unlink(filler)
        self.a.session.VM.start(other, False, False)
        self.assertIn("DB_WRITABLE", self.a.log())
        self.assertEqual(len(self.a.guests()), 2)
        for each in (vm, other):
            self.a.session.VM.hard_shutdown(each)
        self.a.wait_for_no_leftovers()


if __name__ == "__main__":
    unittest.main(verbosity=2)
