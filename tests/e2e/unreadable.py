#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Moves of disks with sectors that cannot be read: with on_read_error=zero the rest arrives, zeros stand for those
sectors, and the migration says which they are, whatever dies in between."""

import json
import os
import random
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import BIN, MIB, PASSWORD, Failure, Move, Pool, give, wait_for  # noqa: E402
from livemove import SETTINGS, newest_migration, qmp  # noqa: E402
from slowmove import DISK, SlowMove  # noqa: E402
from xensession import wait_by_events, wait_by_polling  # noqa: E402

SECTOR = 512
BAD = (DISK // 4 + 3 * SECTOR, 3 * SECTOR)  # offset and length: within one page, and not all of it
RULE = f"error EIO from={BAD[0]} to={sum(BAD)} always"
ZERO = {"on_read_error": "zero"}


def read(path):
    with open(path, "rb") as file:
        return file.read()


def with_zeros(data, offset, length):
    return data[:offset] + bytes(length) + data[offset + length:]


class Told(unittest.TestCase):
    maxDiff = None

    def assert_told(self, record, name, ranges, disk="0"):
        """The record names exactly these, of that disk, and of no other."""
        self.assertEqual(record["bytes_unreadable"], str(sum(length for _, length in ranges)))
        self.assertEqual(list(record["unreadable"]), [disk] if ranges else [])
        if not ranges:
            return
        shown = json.loads(record["unreadable"][disk])
        self.assertEqual(shown["name"], name)
        self.assertEqual((shown["bytes"], shown["n_ranges"]), (sum(length for _, length in ranges), len(ranges)))
        self.assertEqual([(entry["offset"], entry["length"], entry["error"]) for entry in shown["ranges"]],
                         [(offset, length, "Input/output error") for offset, length in ranges])


class Halted(SlowMove, Told):
    settings = {"points": True}

    def setUp(self):
        super().setUp()
        self.vdi, = self.a.disks_of(self.vm)
        self.name = self.a.session.VDI.get_name_label(self.vdi)
        self.data = read(self.a.vdi_path(self.vdi))
        self.a.points.arm("file.read", RULE)

    def assert_zeros(self):
        arrived = self.b.vm_by_uuid(self.uuid)
        there, = self.b.disks_of(arrived)
        self.assertTrue(read(self.b.vdi_path(there)) == with_zeros(self.data, *BAD), "all but the sectors is equal")
        record = newest_migration(self.a)
        self.assert_told(record, self.name, [BAD])
        self.assertIn(f"{BAD[1]} bytes of its disks could not be read", record["outcome"])
        self.assertIn(f"SOURCE-UNREADABLE migration={record['uuid']} disk=0 offset={BAD[0]} length={BAD[1]} ",
                      self.a.log())
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def ferry(self, *args):
        done = subprocess.run([os.path.join(BIN, "ferry"), "--config", self.config, "--server", "A", *args],
                              check=False, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_it_fails_unless_it_is_told_otherwise(self):
        for options in ({}, {"on_read_error": "fail"}):
            with self.assertRaises(Failure) as raised:
                self.move(**options).send()
            self.assertRegex(raised.exception.details[1], r"disk 0, source: read of \d+ bytes at \d+ of .*: Input/output")
            record = newest_migration(self.a)
            self.assertEqual((record["bytes_unreadable"], record["unreadable"]), ("0", {}))
            self.assert_untouched()

    def test_other_words_are_refused(self):
        for word in ("ignore", "", "ZERO"):
            self.assert_refused(self.move(on_read_error=word), "INVALID_VALUE", "options:on_read_error",
                                f"{word} (allowed: fail or zero)")
        session = self.a.session
        with self.assertRaises(Failure) as raised:
            session.VDI.pool_migrate(self.vdi, self.a.sr_create("other"), ZERO)
        self.assertEqual(raised.exception.details,
                         ["INVALID_VALUE", "options:on_read_error", "zero (allowed: fail)"])

    def test_the_sender_dies_after_it_was_met(self):
        """What is stored counts: the sectors are zeros for the comparison too."""
        task = self.move(**ZERO).begin()
        wait_for("the bad sectors are met", lambda: "SOURCE-UNREADABLE" in self.a.log(), 30)
        self.a.kill()
        self.a.start()
        wait_by_polling(self.a.session, task, 60)
        self.assert_zeros()
        self.assertGreater(int(newest_migration(self.a)["bytes_compared"]), 0)

    def test_a_disk_that_is_dead_ends_the_move(self):
        self.a.points.arm("file.read", f"error EIO from={BAD[0]} always")
        for pool in (self.a, self.b):
            pool.configure(migration_bandwidth="0")
            pool.restart()
        with self.assertRaises(Failure) as raised:
            self.move(**ZERO).send()
        self.assertIn("too much of the disk is like that for options:on_read_error=zero", raised.exception.details[1])
        self.assert_untouched()

    def test_the_command_says_so(self):
        self.config = self.a.path("ferry.conf")
        with open(os.open(self.config, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            for pool in (self.a, self.b):
                pool.configure(migration_bandwidth="0")
                pool.restart()
                file.write(f"[server {pool.name}]\nurl = {pool.url}\nuser = root\npassword = {PASSWORD}\n")
        for name, pool in (("A", self.a), ("B", self.b)):
            self.ferry("trust", name, "--fingerprint", pool.fingerprint())
        moved = self.ferry("vm", "migrate", self.uuid, "--to", "B", "--sr", self.b.session.SR.get_uuid(self.sr_b),
                           "--network", self.b.session.network.get_uuid(self.guests_b), "--on-read-error", "zero")
        self.assert_zeros()
        shown = self.ferry("migration", "show", newest_migration(self.a)["uuid"])
        for text in (moved, shown):
            self.assertRegex(text, rf"{self.name} +{BAD[0]} +{BAD[1]}  Input/output error\n")
            self.assertIn(f"{BAD[1]} bytes could not be read at the source and are zeros at the destination", text)


class Packed(Told):
    """A qcow2 image with a compressed cluster that is garbage: QEMU cannot read it, for real."""

    def setUp(self):
        self.a, self.b = self.enterContext(Pool("A")), self.enterContext(Pool("B"))
        self.sr_a, self.sr_b = self.a.sr_create(), self.b.sr_create()

    def damage(self, path, offset):
        """The compressed cluster of that offset."""
        tables = read(path)
        l1 = int.from_bytes(tables[40:48], "big")
        l2 = int.from_bytes(tables[l1:l1 + 8], "big") & 0x00fffffffffffe00
        entry = int.from_bytes(tables[l2 + offset // 65536 * 8:][:8], "big")
        self.assertTrue(entry >> 62 & 1, "the cluster is compressed")
        with open(path, "r+b") as file:
            file.seek(entry & ((1 << 54) - 1))
            file.write(b"\xff" * 400)  # no kind of block that deflate has

    def test_what_qemu_cannot_read(self):
        data = bytes(random.Random(6).choices(b"abcdefgh", k=8 * MIB))
        raw = self.a.path("disk")
        with open(raw, "wb") as file:
            file.write(data)
        path = os.path.join(SlowMove.location(self.a, self.sr_a), "disk.qcow2")
        subprocess.run(["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", raw, path], check=True)
        self.damage(path, 3 * MIB)
        give(path)
        self.a.session.SR.scan(self.sr_a)
        vdi, = self.a.session.VDI.get_all()
        vm = self.a.vm_create("packed", [vdi])
        with self.assertRaises(Failure) as raised:
            Move(self.a, self.b, vm, self.sr_b).send()
        self.assertIn("Input/output error", raised.exception.details[1])
        arrived = Move(self.a, self.b, vm, self.sr_b, options=ZERO).send()
        there, = self.b.disks_of(arrived)
        self.assertTrue(read(self.b.vdi_path(there)) == with_zeros(data, 3 * MIB, 65536))
        record, = (each for each in self.a.session.migration.get_all_records().values() if each["state"] == "DONE")
        self.assert_told(record, "disk.qcow2", [(3 * MIB, 65536)])
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()


class Live(Told):
    """The second disk is bad, beyond the end of the first, on which the guest writes."""

    def setUp(self):
        linuxguest.kernel()
        self.a = self.enterContext(Pool("A", points=True, migration_bandwidth="16MiB", **SETTINGS))
        self.b = self.enterContext(Pool("B", **SETTINGS))
        sr_a, self.sr_b = self.a.sr_create(), self.b.sr_create()
        disks = [self.a.vdi_create(sr_a, 4 * MIB), self.a.vdi_create(sr_a, DISK)]
        self.data = random.Random(7).randbytes(DISK)
        self.a.vdi_write(disks[1], self.data)
        self.name = self.a.session.VDI.get_name_label(disks[1])
        self.vm = self.a.vm_create("guest", disks, **linuxguest.boot_fields(self.a.root))
        self.uuid = self.a.session.VM.get_uuid(self.vm)
        self.a.session.VM.set_memory_limits(self.vm, *[str(96 * MIB)] * 4)
        self.a.session.VM.start(self.vm, False, False)
        self.addCleanup(self.end_guest)
        self.a.points.arm("file.read", RULE)

    def end_guest(self):
        self.a.points.clear()
        for pool in (self.a, self.b):
            vm = pool.vm_by_uuid(self.uuid)
            if vm:
                pool.session.VM.hard_shutdown(vm)

    def assert_arrived(self, content, ranges):
        vm = self.b.vm_by_uuid(self.uuid)
        self.assertEqual(self.b.session.VM.get_power_state(vm), "Running")
        self.assertTrue(read(self.b.vdi_path(self.b.disks_of(vm)[1])) == content)
        self.assert_told(newest_migration(self.a), self.name, ranges, "1")
        self.a.wait_for_no_leftovers()

    def begin(self):
        return Move(self.a, self.b, self.vm, self.sr_b, options=ZERO).begin()

    def test_the_sender_dies_after_it_was_met(self):
        task = self.begin()
        wait_for("the bad sectors are met", lambda: "SOURCE-UNREADABLE" in self.a.log(), 30)
        self.a.kill()
        self.a.start()
        wait_by_events(self.a.session, task, 90)
        self.assert_arrived(with_zeros(self.data, *BAD), [BAD])

    def test_the_guest_writes_them_anew(self):
        """A disk then puts good sectors in their place."""
        self.a.points.arm("sender.CONVERGING", "hang")
        task = self.begin()
        self.a.points.wait_for("sender.CONVERGING", 60)
        self.assert_told(newest_migration(self.a), self.name, [BAD], "1")
        devices = [block["qdev"] for block in qmp(self.a, self.uuid, "query-block") if block.get("inserted", {}).get(
            "image", {}).get("virtual-size") == DISK]
        said = qmp(self.a, self.uuid, "human-monitor-command",
                   **{"command-line": f'qemu-io -d {devices[0]} "write -P 7 {BAD[0]} {BAD[1]}"'})
        self.assertEqual(said, "", "QEMU wrote it")
        self.a.points.disarm("file.read")
        self.a.points.disarm("sender.CONVERGING")
        wait_by_events(self.a.session, task, 60)
        offset, length = BAD
        self.assert_arrived(self.data[:offset] + b"\7" * length + self.data[offset + length:], [])
        self.assertIn("SOURCE-READABLE", self.a.log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
