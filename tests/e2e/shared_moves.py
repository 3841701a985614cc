#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A VM moves between hosts of a pool that share the repository of its disks: nothing is copied, and at no moment do two
QEMU write to one image. As in pool_migrate.py, whose cases are run again with one shared disk and one that is copied."""

import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import pool_migrate  # noqa: E402
from ferrytest import MIB, Move, digest, give  # noqa: E402
from onewriter import OneWriter  # noqa: E402
from pool_migrate import LONG  # noqa: E402

SHARED = "the shared folder"


class Folder:
    """Mixed into a PoolCase: one SR that all hosts reach."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="f.shared.", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        give(cls.folder)
        super().setUpClass()
        cls.shared = cls.a.sr_create("shared", cls.folder, shared=True)
        for host in (cls.b, cls.c):
            host.sr_attach(cls.shared, cls.folder)

    def copies_of(self, vdi):
        uuid = self.c.session.VDI.get_uuid(vdi)
        return super().copies_of(vdi) + [SHARED for file in os.listdir(self.folder) if file.startswith(uuid)]

    def image(self, vdi):
        """By what a shared image is known to be the same file."""
        status = os.stat(os.path.join(self.folder, self.c.session.VDI.get_location(vdi)))
        return status.st_dev, status.st_ino


class HaltedMoves:
    """Of a VM that does not run; mixed into a case with the hosts."""

    def new_vm(self, *srs):
        vdis = [self.a.vdi_create(sr, 8 * MIB) for sr in srs]
        vm = self.a.vm_create("guest", vdis, [self.a.network()])
        self.addCleanup(pool_migrate.destroy, self.c, vm)
        for vdi in vdis:
            self.a.vdi_write(vdi, os.urandom(3 * MIB), MIB)
        return vm, vdis

    def move(self, vm, there, vdi_map):
        move = Move(self.a, there, vm, self.sr[there])
        move.vdi_map = vdi_map
        move.check()
        before = set(self.c.session.migration.get_all())
        self.assertEqual(move.send(), vm)
        record, = [self.c.session.migration.get_record(ref) for ref in self.c.session.migration.get_all()
                   if ref not in before]
        self.assertEqual(self.c.session.VM.get_affinity(vm), there.host)
        self.assert_nothing_left((self.here(), self.guest.uuid))
        return record

    def test_shared_disks_stay_and_others_come(self):
        vm, (shared, local) = self.new_vm(self.shared, self.sr[self.a])
        image = self.image(shared)
        content = [digest(self.a.vdi_path(vdi)) for vdi in (shared, local)]
        self.assertEqual(self.c.session.VM.get_possible_hosts(vm), [self.a.host])
        record = self.move(vm, self.b, {local: self.sr[self.b]})
        self.assertEqual(int(record["bytes_total"]), 3 * MIB)
        self.assertEqual((self.copies_of(shared), self.copies_of(local)), ([SHARED], ["B"]))
        self.assertEqual(self.image(shared), image)
        self.assertEqual([digest(self.a.vdi_path(vdi)) for vdi in (shared, local)], content)
        self.assertEqual(self.c.session.VM.get_possible_hosts(vm), [self.b.host])
        # Into the shared repository, and out of it.
        self.move(vm, self.a, {local: self.shared})
        self.assertEqual(self.copies_of(local), [SHARED])
        self.move(vm, self.b, {shared: self.sr[self.b]})
        self.assertEqual((self.copies_of(shared), self.copies_of(local)), (["B"], [SHARED]))
        self.assertEqual([digest(self.a.vdi_path(vdi)) for vdi in (shared, local)], content)

    def test_the_disks_of_snapshots_stay_where_they_are_reached(self):
        vm, (shared, local) = self.new_vm(self.shared, self.sr[self.a])
        snapshot = self.c.session.VM.snapshot(vm, "kept")
        self.addCleanup(pool_migrate.destroy, self.c, snapshot)
        kept = self.c.disks_of(snapshot)
        content, image = [digest(self.a.vdi_path(vdi)) for vdi in kept], self.image(kept[0])
        record = self.move(vm, self.b, {local: self.sr[self.b]})
        self.assertEqual(int(record["bytes_total"]), 2 * 3 * MIB)
        self.assertEqual([self.copies_of(vdi) for vdi in (shared, local, *kept)], [[SHARED], ["B"], [SHARED], ["B"]])
        self.assertEqual(self.image(kept[0]), image)
        # One that only its own host reaches goes where its disk is.
        self.move(vm, self.a, {local: self.shared})
        self.assertEqual([self.copies_of(vdi) for vdi in (shared, local, *kept)], [[SHARED]] * 4)
        self.assertEqual([digest(self.a.vdi_path(vdi)) for vdi in kept], content)

    def test_a_halted_vm_of_shared_disks_alone_goes_wherever_it_is_told_to(self):
        vm, (shared,) = self.new_vm(self.shared)
        image, content = self.image(shared), digest(self.a.vdi_path(shared))
        for there in (self.b, self.c, self.a):
            record = self.move(vm, there, {})
            self.assertEqual((record["state"], int(record["bytes_sent"])), ("DONE", 0))
        self.assertEqual((self.image(shared), digest(self.a.vdi_path(shared))), (image, content))
        pbds = {self.c.session.PBD.get_host(pbd): pbd for pbd in self.c.session.SR.get_PBDs(self.shared)}
        self.c.session.PBD.unplug(pbds[self.b.host])
        move = Move(self.a, self.b, vm, self.sr[self.b])
        move.vdi_map = {}
        self.refused("VDI_NOT_IN_MAP", move.send)
        self.c.session.PBD.plug(pbds[self.b.host])


class Live(Folder, pool_migrate.Live):
    """One shared disk, and one that is copied."""

    def srs(self):
        return [self.shared, self.sr[self.a]]

    def shared_disk(self):
        return self.c.disks_of(self.guest.vm)[0]

    def home_of(self, vdi, host):
        return SHARED if self.c.session.VDI.get_SR(vdi) == self.shared else host.name

    def setUp(self):
        super().setUp()
        self.before = self.image(self.shared_disk())

    def assert_well(self, host, begun, away=0.0):
        super().assert_well(host, begun, away)
        self.assertEqual(self.image(self.shared_disk()), self.before)


class Moves(HaltedMoves, Live):

    def srs(self):
        return self.shared

    def test_nothing_is_copied_and_one_writes(self):
        writer = OneWriter(self.hosts, self.image(self.shared_disk())[1])
        self.addCleanup(writer.stop)
        for there in (self.b, self.c, self.a) if LONG else (self.b, self.a):
            before = set(self.c.session.migration.get_all())
            self.go(there)
            record, = [self.c.session.migration.get_record(ref) for ref in self.c.session.migration.get_all()
                       if ref not in before]
            self.assertEqual((int(record["bytes_total"]), int(record["bytes_sent"])), (0, 0))
            self.assertGreater(int(record["memory_sent"]), 0)
        writer.stop()
        self.assert_content()
        self.assertGreater(writer.seen, 10)
        self.assertEqual(writer.twice, [])


if LONG:
    class Failures(Live, pool_migrate.Failures):
        """Every case of there, with a disk that must not be touched."""

    class SharedAlone(Failures):
        """No disk is copied: the way to the switch is short."""

        def srs(self):
            return self.shared

    class Qcow2(Moves):
        disks = [(16 * MIB, "random:100:4:0:12", "qcow2"), (16 * MIB, "mixed:30", "qcow2")]

        def assert_content(self):
            """The images are no raw ones: the guest itself has looked."""


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
