#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A halted VM moves from pool A to pool B in the ways that scripts ask for it."""

import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import GIB, MIB, Failure, Move, Pool, allocated, has_failed
from vmstate import different, vm_state
from xensession import wait_by_events, wait_by_polling


class ColdMigration(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A"))
        cls.b = cls.enterClassContext(Pool("B"))
        cls.sr_a = cls.a.sr_create()
        cls.sr_b = cls.b.sr_create()
        cls.guests_a = cls.a.network_create()
        cls.guests_b = cls.b.network_create()

    def setUp(self):
        super().setUp()
        self.addCleanup(self.show_logs_of_a_failure)

    def show_logs_of_a_failure(self):
        if has_failed(self):
            self.a.show_log()
            self.b.show_log()

    def vm(self, label, sizes, networks=1, **fields):
        disks = [self.a.vdi_create(self.sr_a, size, f"{label} {i}") for i, size in enumerate(sizes)]
        return self.a.vm_create(label, disks, [self.guests_a] * networks, **fields)

    def fill(self, vm, number, data, offset=0):
        self.a.vdi_write(self.a.disks_of(vm)[number], data, offset)

    def move(self, vm, **options):
        return Move(self.a, self.b, vm, self.sr_b, self.guests_b, options=options)

    def assert_moved(self, vm, uuid, before, files, arrived):
        """It is in B as it was in A, and nothing of it is in A."""
        session = self.b.session
        self.assertEqual(self.b.vm_by_uuid(uuid), arrived)
        self.assertEqual(different(before, vm_state(self.b, arrived)), [])
        for vif in session.VM.get_VIFs(arrived):
            self.assertEqual(session.VIF.get_network(vif), self.guests_b)
        for vdi in self.b.disks_of(arrived):
            self.assertEqual(session.VDI.get_SR(vdi), self.sr_b)
        self.assertIsNone(self.a.vm_by_uuid(uuid))
        self.assertEqual([file for file in files if os.path.exists(file)], [])
        with self.assertRaises(Failure) as raised:
            self.a.session.VM.get_record(vm)
        self.assertEqual(raised.exception.details, ["HANDLE_INVALID", "VM", vm])
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def run_move(self, vm, send):
        """Moves vm by send(move), checks, and returns its ref in B."""
        uuid = self.a.session.VM.get_uuid(vm)
        files = [self.a.vdi_path(vdi) for vdi in self.a.disks_of(vm)]
        before = vm_state(self.a, vm)
        arrived = send(self.move(vm))
        self.assert_moved(vm, uuid, before, files, arrived)
        return arrived

    def test_synchronous(self):
        vm = self.vm("sync", [48 * MIB, 3 * MIB], networks=2)
        self.fill(vm, 0, os.urandom(48 * MIB))
        self.fill(vm, 1, b"text" * 1000, MIB)
        self.run_move(vm, Move.send)

    def test_async_waited_for_by_polling(self):
        vm = self.vm("polling", [8 * MIB])
        self.fill(vm, 0, os.urandom(5 * MIB), 2 * MIB)

        def send(move):
            task = move.begin()
            arrived = wait_by_polling(self.a.session, task)
            self.assertEqual(float(self.a.session.task.get_progress(task)), 1.0)
            self.a.session.task.destroy(task)
            return arrived
        self.run_move(vm, send)

    def test_async_waited_for_by_events(self):
        vm = self.vm("events", [8 * MIB])
        self.fill(vm, 0, os.urandom(8 * MIB))
        self.run_move(vm, lambda move: wait_by_events(self.a.session, move.begin()))

    def test_there_and_back_again(self):
        vm = self.vm("return", [4 * MIB])
        self.fill(vm, 0, os.urandom(4 * MIB))
        before = vm_state(self.a, vm)
        arrived = self.run_move(vm, Move.send)
        home = Move(self.b, self.a, arrived, self.sr_a, self.guests_a).send()
        self.assertEqual(different(before, vm_state(self.a, home)), [])
        self.b.wait_for_no_leftovers()

    def test_copy_keeps_the_source_and_makes_a_new_vm(self):
        vm = self.vm("copy", [6 * MIB])
        self.fill(vm, 0, os.urandom(6 * MIB))
        before = vm_state(self.a, vm)
        arrived = self.move(vm, copy="true").send()
        self.assertEqual(different(before, vm_state(self.a, vm)), [])
        copied = vm_state(self.b, arrived)
        self.assertEqual(different(before, copied, but={"uuid"}), [])
        self.assertNotEqual(before["VM"]["uuid"], copied["VM"]["uuid"])
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_no_disk_and_no_network(self):
        self.run_move(self.vm("bare", [], networks=0), Move.send)

    def test_sixteen_disks(self):
        vm = self.vm("sixteen", [(1 + i % 4) * MIB for i in range(16)])
        for number in range(16):
            self.fill(vm, number, os.urandom(700_000), number * 512)
        self.run_move(vm, Move.send)

    def test_sizes(self):
        sizes = [512, MIB + 512, 4 * MIB + 1024, 20 * GIB]
        vm = self.vm("sizes", sizes)
        self.fill(vm, 0, os.urandom(512))
        self.fill(vm, 1, os.urandom(MIB + 512))
        self.fill(vm, 2, os.urandom(512), 4 * MIB + 512)
        for offset in (0, 7 * GIB + 512, 20 * GIB - 3 * MIB):
            self.fill(vm, 3, os.urandom(3 * MIB), offset)
        arrived = self.run_move(vm, Move.send)
        paths = [self.b.vdi_path(vdi) for vdi in self.b.disks_of(arrived)]
        self.assertEqual([os.path.getsize(path) for path in paths], sizes)
        self.assertLess(allocated(paths[3]), 16 * MIB)

    def test_written_zeros_take_no_space(self):
        vm = self.vm("zeros", [64 * MIB])
        self.fill(vm, 0, bytes(64 * MIB))
        self.assertGreaterEqual(allocated(self.a.vdi_path(self.a.disks_of(vm)[0])), 64 * MIB)
        arrived = self.run_move(vm, Move.send)
        self.assertLess(allocated(self.b.vdi_path(self.b.disks_of(arrived)[0])), MIB)

    def test_odd_names(self):
        for label in ('quotes " and \' and `', "commas, and; more=", "ünïcödé 虚拟机 🚚",
                      "two\nlines\tand a tab", "<value>&amp;</value>", "../../etc/passwd", ""):
            with self.subTest(label=label):
                vm = self.vm(label, [MIB], name_description=label + label,
                             other_config={"key, with='quotes'": label})
                self.fill(vm, 0, os.urandom(MIB))
                self.run_move(vm, Move.send)

    def test_disks_go_to_the_repository_that_the_map_says(self):
        second = self.b.sr_create("second")
        vm = self.vm("spread", [MIB, MIB])
        move = self.move(vm)
        first, other = self.a.disks_of(vm)
        move.vdi_map = {first: self.sr_b, other: second}
        arrived = move.send()
        self.assertEqual([self.b.session.VDI.get_SR(vdi) for vdi in self.b.disks_of(arrived)],
                         [self.sr_b, second])

    def test_an_empty_cd_drive_needs_no_map(self):
        vm = self.vm("cd", [MIB])
        self.a.session.VBD.create({
            "VM": vm, "VDI": "OpaqueRef:NULL", "userdevice": "3", "bootable": False, "mode": "RO",
            "type": "CD", "unpluggable": True, "empty": True, "other_config": {},
            "qos_algorithm_type": "", "qos_algorithm_params": {}})
        self.run_move(vm, Move.send)

    def test_the_check_alone_changes_nothing(self):
        vm = self.vm("check", [MIB])
        before = vm_state(self.a, vm)
        vms = self.b.session.VM.get_all()
        self.assertEqual(self.move(vm).check(), "")
        self.assertEqual(different(before, vm_state(self.a, vm)), [])
        self.assertEqual(self.b.session.VM.get_all(), vms)
        self.b.wait_for_no_leftovers()

    def test_three_at_once(self):
        vms = [self.vm(f"parallel {i}", [24 * MIB]) for i in range(3)]
        before, results = [], {}
        for vm in vms:
            self.fill(vm, 0, os.urandom(24 * MIB))
            before.append(vm_state(self.a, vm))
        moves = [self.move(vm) for vm in vms]

        def send(i):
            session = self.a.session.other()
            results[i] = moves[i].send(session)
            session.close()
        threads = [threading.Thread(target=send, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(3):
            self.assertEqual(different(before[i], vm_state(self.b, results[i])), [])
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_a_disk_of_no_bytes_is_refused(self):
        with self.assertRaises(Failure) as raised:
            self.a.vdi_create(self.sr_a, 0)
        self.assertEqual(raised.exception.details[:2], ["INVALID_VALUE", "virtual_size"])

    def test_a_size_between_sectors_is_rounded_up(self):
        vdi = self.a.vdi_create(self.sr_a, 1000)
        self.assertEqual(self.a.session.VDI.get_virtual_size(vdi), "1024")
        self.assertEqual(os.path.getsize(self.a.vdi_path(vdi)), 1024)
        self.a.session.VDI.destroy(vdi)


if __name__ == "__main__":
    unittest.main(verbosity=2)
