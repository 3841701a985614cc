#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The writer in the guest and the verifiers of its disks: that they see what they are there to see, without any move."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import BIN, MIB, Pool, wait_for  # noqa: E402
from liveguest import LiveGuest, check_file_system, verify_files, verify_image  # noqa: E402

BLOCK = 4096
DISKS = [(16 * MIB, "random:300"), (16 * MIB, "mixed:100"), (16 * MIB, "seq:50:64"),
         (16 * MIB, "hot:50"), (24 * MIB, "ext4:30")]


def a_written_block(path):
    with open(path, "rb") as file:
        return next(n for n in range(16 * MIB // BLOCK) if os.pread(file.fileno(), 8, n * BLOCK) != bytes(8))


def copy_block(path, source, target):
    with open(path, "r+b", buffering=0) as file:
        data = os.pread(file.fileno(), BLOCK, source * BLOCK)
        os.pwrite(file.fileno(), data, target * BLOCK)


class GuestWriter(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        linuxguest.kernel()

    def setUp(self):
        self.a = self.enterContext(Pool("A"))
        self.folder = tempfile.mkdtemp(prefix="f.files.")
        self.addCleanup(shutil.rmtree, self.folder)

    def assert_found(self, path, disk, kind):
        done = subprocess.run([os.path.join(BIN, "verify_image"), "table", path, disk["disk"], disk["hash"]],
                              check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, f'"{kind}": [1-9]')

    def damage_outside(self, path, disk):
        """On copies of the image: what the verifier must find."""
        copy = os.path.join(self.folder, "copy")
        last = disk["sequence"]
        for kind in ("torn", "misplaced", "lost", "foreign"):
            shutil.copyfile(path, copy)
            with open(copy, "r+b") as file:
                block = a_written_block(copy)
                if kind == "torn":
                    at = block * BLOCK + 4000
                    os.pwrite(file.fileno(), bytes([os.pread(file.fileno(), 1, at)[0] ^ 1]), at)
                elif kind == "lost":
                    os.pwrite(file.fileno(), bytes(BLOCK), block * BLOCK)
                elif kind == "foreign":
                    os.pwrite(file.fileno(), b"!", block * BLOCK)
            if kind == "misplaced":
                copy_block(copy, block, block + 1)
            with self.subTest(kind=kind, block=block, pattern=disk["pattern"]):
                self.assert_found(copy, disk, kind)
        os.unlink(copy)
        verify_image("loose", path, last if disk["pattern"] == "seq" else 1)

    def damage_inside(self, guest):
        """Behind the guest's back: it must notice by itself."""
        guest.command("stop")
        path = guest.disk_paths()[0]
        block = a_written_block(path)
        copy_block(path, block, block + 1)
        answer = guest.command("verify")
        self.assertEqual([disk["wrong"] > 0 for disk in answer["disks"]], [True] + [False] * 4)
        self.assertIn("wrong", [event["event"] for event in guest.console.complaints()])

    def test_what_is_wrong_is_seen(self):
        with LiveGuest(self.a, "writes", DISKS) as guest:
            guest.start()
            guest.next_status()
            first = guest.next_status()
            guest.verify_inside()
            answer = guest.verify_outside()
            for disk in answer["disks"]:
                self.assertGreater(disk["writes"], 0)
                self.assertEqual((disk["errors"], disk["wrong"]), (0, 0))
            self.assertGreater(answer["disks"][1]["discards"] + first["disks"][1]["zeroes"], 0)
            for number in (0, 1, 2):
                self.damage_outside(guest.disk_paths()[number], answer["disks"][number])
            guest.command("go")
            guest.next_status()

            begun = time.monotonic()
            guest.call("pause")
            time.sleep(0.5)
            guest.call("unpause")
            guest.next_status()
            self.assertGreaterEqual(guest.console.pause(begun), 0.45)

            guest.verify_inside()
            self.damage_inside(guest)
            guest.call("clean_shutdown")
            ended = guest.console.wait_for_event("poweroff", command="button")
            path = guest.disk_paths()[4]
            check_file_system(path)
            verify_files(path, ended["disks"][4], self.folder)

    def test_a_killed_guest_leaves_what_it_had_written(self):
        with LiveGuest(self.a, "killed", [(16 * MIB, "seq:500"), (16 * MIB, "mixed:200")]) as guest:
            guest.start()
            guest.next_status()
            told = guest.next_status()
            guest.call("hard_shutdown")
            wait_for("the VM is halted", lambda: guest.state() == "Halted", 10)
            for disk, path in zip(told["disks"], guest.disk_paths()):
                verify_image("loose", path, disk["sequence"] if disk["pattern"] == "seq" else 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
