#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies of disks and VMs, snapshots of halted ones and going back to them: whole, alone, and all or nothing."""

import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, NULL, Move, Pool, allocated, digest, has_failed, wait_for  # noqa: E402
from xensession import Failure, wait_by_polling  # noqa: E402

DISK = 16 * MIB


def small_disk(case, pool, size):
    """An SR in a file system of so many bytes."""
    folder = pool.path("small")
    os.mkdir(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "none", folder], check=True)
    case.addCleanup(subprocess.run, ["umount", "-l", folder], check=False)
    return pool.sr_create("small", folder=folder)


class Case(unittest.TestCase):
    settings = {}

    def setUp(self):
        self.a = self.enterContext(Pool("A", points=True, **self.settings))
        self.one, self.two = self.a.sr_create("one"), self.a.sr_create("two")
        self.session = self.a.session
        self.addCleanup(self.show_log_of_a_failure)

    def show_log_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(100)

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        return raised.exception.details[1:]

    def disk(self, size=DISK, data=3 * MIB, sr=None):
        vdi = self.a.vdi_create(sr or self.one, size)
        self.a.vdi_write(vdi, os.urandom(data), MIB)
        return vdi

    def digests(self, vm):
        return [digest(self.a.vdi_path(vdi)) for vdi in self.a.disks_of(vm)]

    def objects(self):
        """Every VM, VDI, VBD and VIF, without the figures that are refreshed."""
        session = self.session
        found = {}
        for kind in (session.VM, session.VDI, session.VBD, session.VIF):
            for ref, record in kind.get_all_records().items():
                record.pop("physical_utilisation", None)
                found[ref] = record
        return found

    def assert_clean(self):
        """Every file has its VDI, nothing is marked, recorded, or found by the doctor."""
        self.a.wait_for_no_leftovers(5)
        for vdi in self.session.VDI.get_all_records().values():
            self.assertEqual(vdi["current_operations"], {})
        for sr in (self.one, self.two):
            sizes = [int(self.session.VDI.get_virtual_size(vdi)) for vdi in self.session.SR.get_VDIs(sr)]
            self.assertEqual(int(self.session.SR.get_virtual_allocation(sr)), sum(sizes))


class Disks(Case):

    def test_a_copy_is_whole_sparse_and_alone(self):
        session = self.session
        vdi = self.disk()
        for copy, sr in ((session.VDI.copy(vdi, self.two), self.two), (session.VDI.copy(vdi, self.one), self.one),
                         (session.VDI.clone(vdi), self.one), (session.VDI.clone(vdi, {}), self.one)):
            before, after = session.VDI.get_record(vdi), session.VDI.get_record(copy)
            self.assertEqual(after["SR"], sr)
            for same in ("name_label", "name_description", "virtual_size", "other_config", "tags", "type", "sm_config",
                         "is_a_snapshot", "snapshot_of", "read_only"):
                self.assertEqual(after[same], before[same], same)
            self.assertNotEqual(after["uuid"], before["uuid"])
            self.assertEqual(after["VBDs"], [])
            path = self.a.vdi_path(copy)
            self.assertEqual(digest(path), digest(self.a.vdi_path(vdi)))
            self.assertLess(allocated(path), 4 * MIB)
            self.assertEqual(int(after["physical_utilisation"]), allocated(path))
        self.a.vdi_write(copy, b"x" * MIB)
        self.assertNotEqual(digest(self.a.vdi_path(copy)), digest(self.a.vdi_path(vdi)))
        self.assert_clean()
        session.VDI.destroy(vdi)
        self.assertTrue(os.path.exists(path))
        self.assert_clean()

    def test_a_qcow2_image_is_copied_as_one_that_stands_alone(self):
        vdi = self.a.vdi_create(self.one, DISK, image="qcow2")
        subprocess.run(["qemu-io", "-c", "write -P 7 1M 3M", self.a.vdi_path(vdi)], check=True,
                       stdout=subprocess.DEVNULL)
        copy = self.session.VDI.copy(vdi, self.two)
        self.assertEqual(self.session.VDI.get_sm_config(copy)["image-format"], "qcow2")
        path = self.a.vdi_path(copy)
        subprocess.run(["qemu-img", "check", "-q", path], check=True)
        subprocess.run(["qemu-img", "compare", "-q", self.a.vdi_path(vdi), path], check=True)
        self.assert_clean()

    def test_a_snapshot_of_a_disk_is_read_only(self):
        session = self.session
        vdi = self.disk()
        snapshot = session.VDI.snapshot(vdi)
        record = session.VDI.get_record(snapshot)
        self.assertEqual((record["is_a_snapshot"], record["snapshot_of"], record["read_only"]), (True, vdi, True))
        self.assertEqual(session.VDI.get_snapshots(vdi), [snapshot])
        self.refused("VDI_READONLY", self.a.vm_create, "guest", [snapshot])
        self.assertEqual(self.refused("VDI_READONLY", session.VDI.resize, snapshot, str(2 * DISK)), [snapshot])
        session.VDI.resize(vdi, str(2 * DISK))
        copy = session.VDI.get_record(session.VDI.clone(snapshot))
        self.assertEqual((copy["is_a_snapshot"], copy["snapshot_of"], copy["read_only"]), (False, NULL, False))

    def test_what_cannot_be_is_refused(self):
        session = self.session
        vdi = self.disk()
        self.refused("HANDLE_INVALID", session.VDI.copy, "OpaqueRef:none", self.two)
        self.refused("HANDLE_INVALID", session.VDI.copy, vdi, "OpaqueRef:none")
        session.PBD.unplug(session.SR.get_PBDs(self.two)[0])
        self.refused("SR_NOT_ATTACHED", session.VDI.copy, vdi, self.two)
        session.PBD.plug(session.SR.get_PBDs(self.two)[0])
        vm = self.a.vm_create("guest", [vdi])
        session.VM.set_memory_limits(vm, *[str(32 * MIB)] * 4)
        session.VM.start(vm, True, False)
        self.assertEqual(self.refused("VDI_IN_USE", session.VDI.copy, vdi, self.two), [vdi, "copy"])
        self.refused("VDI_IN_USE", session.VDI.clone, vdi)
        for function, *rest in ((session.VM.clone, "new"), (session.VM.copy, "new", NULL)):
            self.assertEqual(self.refused("VM_BAD_POWER_STATE", function, vm, *rest), [vm, "halted", "paused"])
        session.VM.hard_shutdown(vm)
        os.unlink(self.a.vdi_path(vdi))
        self.refused("VDI_MISSING", session.VDI.copy, vdi, self.two)
        self.refused("VDI_MISSING", session.VM.snapshot, vm, "new")
        self.assertEqual(session.VM.get_current_operations(vm), {})
        self.assertEqual(len(session.VDI.get_all()), 1)

    @unittest.skipIf(os.geteuid() != 0, "only root can mount a small file system")
    def test_too_little_room(self):
        small = small_disk(self, self.a, "6m")
        session = self.session
        large, fits = self.disk(data=8 * MIB), self.disk(data=4 * MIB)
        vm = self.a.vm_create("guest", [fits, large])
        before = self.objects()
        self.refused("SR_BACKEND_FAILURE_44", session.VDI.copy, large, small)
        self.refused("SR_BACKEND_FAILURE_44", session.VM.copy, vm, "new", small)
        self.assertEqual(os.listdir(self.a.path("small")), [])
        self.assertEqual(self.objects(), before)
        copy = session.VDI.copy(fits, small)
        self.assertEqual(digest(self.a.vdi_path(copy)), digest(self.a.vdi_path(fits)))
        self.assert_clean()


class Machines(Case):

    def setUp(self):
        super().setUp()
        self.disks = [self.disk(), self.disk(sr=self.two)]
        self.vm = self.a.vm_create("guest", self.disks, [self.a.network()], blocked_operations={"pause": "no"})
        iso = self.a.vdi_create(self.one, MIB, "cd")
        self.session.VBD.create({"VM": self.vm, "VDI": iso, "userdevice": "3", "bootable": False, "mode": "RO",
                                 "type": "CD", "unpluggable": True, "empty": False, "other_config": {},
                                 "qos_algorithm_type": "", "qos_algorithm_params": {}})
        self.iso = iso

    def macs(self, vm):
        return [self.session.VIF.get_MAC(vif) for vif in self.session.VM.get_VIFs(vm)]

    def cds(self, vm):
        vbds = [self.session.VBD.get_record(vbd) for vbd in self.session.VM.get_VBDs(vm)]
        return [vbd["VDI"] for vbd in vbds if vbd["type"] == "CD"]

    def test_a_clone_is_another_vm_with_the_same_content(self):
        session = self.session
        clone = session.VM.clone(self.vm, "second")
        copy = session.VM.copy(self.vm, "third", NULL)
        moved = session.VM.copy(self.vm, "fourth", self.two)
        before = session.VM.get_record(self.vm)
        for name, vm, srs in (("second", clone, [self.one, self.two]), ("third", copy, [self.one, self.two]),
                              ("fourth", moved, [self.two, self.two])):
            after = session.VM.get_record(vm)
            for same in ("name_description", "memory_static_max", "VCPUs_max", "other_config", "platform", "tags",
                         "HVM_boot_params", "power_state", "is_a_template", "is_a_snapshot", "allowed_operations"):
                self.assertEqual(after[same], before[same], same)
            self.assertEqual((after["name_label"], after["blocked_operations"]), (name, {}))
            self.assertEqual(self.digests(vm), self.digests(self.vm))
            self.assertEqual([session.VDI.get_SR(vdi) for vdi in self.a.disks_of(vm)], srs)
            self.assertEqual(len(set(self.a.disks_of(vm)) | set(self.disks)), 4)
            self.assertEqual(self.cds(vm), [self.iso])
            for field in ("uuid", "metrics"):
                self.assertNotEqual(after[field], before[field])
            for field in ("userdevice", "bootable", "mode", "other_config"):
                self.assertEqual([session.VBD.get_record(vbd)[field] for vbd in after["VBDs"]],
                                 [session.VBD.get_record(vbd)[field] for vbd in before["VBDs"]])
        self.assertEqual(len(set(self.macs(self.vm) + self.macs(clone) + self.macs(copy) + self.macs(moved))), 4)
        for operation in ("clone", "copy", "snapshot"):
            self.assertIn(operation, before["allowed_operations"])
        self.assertNotIn("revert", before["allowed_operations"])
        self.assert_clean()

    def test_a_template_is_cloned_to_a_template(self):
        session = self.session
        session.VM.set_is_a_template(self.vm, True)
        self.refused("VM_IS_TEMPLATE", session.VM.snapshot, self.vm, "new")
        first, second = (session.Async.VM.clone(self.vm, name) for name in ("one", "two"))
        for task in (first, second):
            vm = wait_by_polling(session, task)
            self.assertTrue(session.VM.get_is_a_template(vm))
            self.assertEqual(session.VM.get_other_config(vm)["base_template_name"], "guest")
            session.VM.set_is_a_template(vm, False)
            self.assertIn("start", session.VM.get_allowed_operations(vm))
        self.assert_clean()

    def test_snapshots_make_a_tree_and_can_be_gone_back_to(self):
        session, vm = self.session, self.vm
        first_state, macs = self.digests(vm), self.macs(vm)
        first = session.VM.snapshot(vm, "first")
        record = session.VM.get_record(first)
        self.assertEqual((record["is_a_snapshot"], record["is_a_template"], record["snapshot_of"], record["parent"]),
                         (True, True, vm, NULL))
        self.assertEqual(record["snapshot_info"]["power-state-at-snapshot"], "Halted")
        self.assertLess(abs(time.time() - time.mktime(time.strptime(
            str(record["snapshot_time"]), "%Y%m%dT%H:%M:%SZ")) + time.timezone), 60)
        self.assertEqual(sorted(record["allowed_operations"]), ["clone", "copy", "destroy", "revert"])
        self.assertEqual([session.VDI.get_snapshot_of(vdi) for vdi in self.a.disks_of(first)], self.disks)
        self.assertEqual(self.macs(first), macs)
        self.a.vdi_write(self.disks[0], os.urandom(MIB))
        session.VDI.resize(self.disks[1], str(2 * DISK))
        session.VM.set_name_label(vm, "renamed")
        session.VM.set_VCPUs_max(vm, "4")
        second_state = self.digests(vm)
        second = session.VM.snapshot(vm, "second")
        self.assertEqual((session.VM.get_parent(second), session.VM.get_parent(vm)), (first, second))
        self.assertEqual(sorted(session.VM.get_snapshots(vm)), sorted([first, second]))
        extra = self.disk()
        session.VBD.create({"VM": vm, "VDI": extra, "userdevice": "5", "bootable": False, "mode": "RW", "type": "Disk",
                            "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "",
                            "qos_algorithm_params": {}})

        session.VM.revert(first)
        self.assertEqual(self.a.disks_of(vm), self.disks)
        self.assertEqual(self.digests(vm), first_state)
        self.assertEqual(int(session.VDI.get_virtual_size(self.disks[1])), DISK)
        self.assertEqual((self.macs(vm), self.cds(vm)), (macs, [self.iso]))
        self.assertEqual(session.VDI.get_VBDs(extra), [])  # it stays, and the VM has it no more
        after = session.VM.get_record(vm)
        self.assertEqual((after["name_label"], after["VCPUs_max"], after["parent"], after["is_a_snapshot"]),
                         ("renamed", "2", first, False))
        self.assertIn("start", after["allowed_operations"])
        self.assert_clean()

        session.VDI.destroy(self.disks[0])
        session.VM.revert(second)
        self.assertEqual(self.digests(vm), second_state)
        self.assertEqual(session.VDI.get_snapshot_of(self.a.disks_of(second)[0]), self.a.disks_of(vm)[0])
        self.assertEqual(session.VDI.get_read_only(self.a.disks_of(vm)[0]), False)
        self.assertEqual(self.digests(session.VM.clone(first, "from first")), first_state)
        self.assert_clean()

        self.refused("OPERATION_NOT_ALLOWED", session.VM.revert, vm)
        session.VM.destroy(first)
        self.assertEqual(session.VM.get_parent(second), NULL)
        session.VM.destroy(second)
        self.assertEqual(session.VM.get_snapshots(vm), [])
        session.VM.destroy(vm)
        self.assert_clean()

    def test_snapshots_outlive_their_vm(self):
        session, kept = self.session, self.digests(self.vm)
        snapshot = session.VM.snapshot(self.vm, "kept")
        disks = self.a.disks_of(self.vm)
        session.VM.destroy(self.vm)
        for vdi in disks:
            session.VDI.destroy(vdi)
        record = session.VM.get_record(snapshot)
        self.assertEqual((record["is_a_snapshot"], record["snapshot_of"]), (True, NULL))
        self.assertEqual(sorted(record["allowed_operations"]), ["clone", "copy", "destroy"])
        text, = self.refused("OPERATION_NOT_ALLOWED", session.VM.revert, snapshot)
        self.assertIn("clone", text)
        self.assertEqual(self.digests(session.VM.clone(snapshot, "again")), kept)
        self.assert_clean()

    def test_what_a_vm_with_snapshots_is_refused(self):
        session = self.session
        snapshot = session.VM.snapshot(self.vm, "kept")
        before = self.objects()
        self.assertEqual(session.VM.get_children(snapshot), [self.vm])
        with Pool("B") as b:
            sr = b.sr_create()
            self.refused("VM_IS_SNAPSHOT", Move(self.a, b, snapshot, sr).send)
        self.refused("VM_IS_TEMPLATE", session.VM.start, snapshot, False, False)
        session.VM.set_memory_limits(self.vm, *[str(32 * MIB)] * 4)
        session.VM.start(self.vm, True, False)
        self.refused("VM_BAD_POWER_STATE", session.VM.revert, snapshot)
        session.VM.hard_shutdown(self.vm)
        self.assertEqual(self.objects().keys(), before.keys())
        self.assert_clean()

    def test_what_cannot_be_removed_at_once_goes_later(self):
        snapshot = self.session.VM.snapshot(self.vm, "kept")
        kept = self.digests(self.vm)
        for later in (lambda: self.a.ferry("doctor", "--fix"), self.a.restart):
            self.a.vdi_write(self.disks[0], os.urandom(MIB))
            self.a.points.arm("disk.remove", "error EIO always")
            self.session.VM.revert(snapshot)
            self.assertGreater(self.a.points.passed("disk.remove"), 0)
            self.assertEqual(self.digests(self.vm), kept)
            self.assertIn("COPY-LEFTOVER", self.a.log())
            self.assertNotEqual(self.a.leftovers(), [])
            self.assertEqual(set(self.session.VM.get_current_operations(self.vm).values()), {"reverting"})
            self.a.points.clear()
            later()
            self.session = self.a.session
            self.assertIn("start", self.session.VM.get_allowed_operations(self.vm))
            self.assert_clean()

    def test_an_agent_that_dies_at_the_commit_has_all_or_nothing(self):
        session, vm = self.session, self.vm
        snapshot = session.VM.snapshot(vm, "kept")
        self.a.vdi_write(self.disks[0], os.urandom(MIB))
        for point, is_done in (("copy.commit.before", False), ("copy.commit.after", True)):
            for call, *args in (("clone", vm, "new"), ("snapshot", vm, "new"), ("revert", snapshot)):
                before, state = self.objects(), self.digests(vm)
                self.a.points.arm(point, "kill")
                getattr(self.session.Async.VM, call)(*args)
                self.a.killed()
                self.a.start()
                self.session = self.a.session
                after = self.objects()
                if not is_done:
                    self.assertEqual(after, before)
                elif call == "revert":
                    self.assertEqual(self.digests(vm), self.digests(snapshot))
                else:
                    new, = [ref for ref in self.session.VM.get_by_name_label("new") if ref not in before]
                    self.assertEqual(self.digests(new), state)
                self.assert_clean()


class Slow(Case):
    """The file system shares no blocks, and the rate is limited."""
    settings = {"migration_bandwidth": "4MiB"}

    def setUp(self):
        super().setUp()
        self.a.points.arm("copy.reflink", "error EOPNOTSUPP always")
        self.vm = self.a.vm_create("guest", [self.disk(data=5 * MIB), self.disk(data=5 * MIB)])

    def begin(self, call, *args):
        before = self.files()
        task = call(*args)
        wait_for("the copy has begun", lambda: sum(self.files().values()) > sum(before.values()) + MIB // 2, 10)
        return task

    def files(self):
        return {path: allocated(path) for sr in (self.one, self.two)
                for folder in [self.session.PBD.get_device_config(self.session.SR.get_PBDs(sr)[0])["location"]]
                for path in (os.path.join(folder, name) for name in os.listdir(folder))}

    def test_cancelled_it_leaves_nothing(self):
        session, disk = self.session, self.a.disks_of(self.vm)[0]
        snapshot = session.VM.snapshot(self.vm, "kept")
        self.cancel(session.Async.VDI.copy, disk, self.two)
        self.cancel(session.Async.VM.snapshot, self.vm, "new")
        self.cancel(session.Async.VM.revert, snapshot)
        self.cancel(session.Async.VM.clone, self.vm, "new", after=0.3)

    def cancel(self, call, *args, after=0.0):
        session, disk = self.session, self.a.disks_of(self.vm)[0]
        before = self.objects()
        task = self.begin(call, *args)
        self.assertIn(list(session.VDI.get_current_operations(disk).values()), (["copy"], ["update"]))
        self.refused("VDI_IN_USE", session.VDI.destroy, disk)
        with self.assertRaises(Failure) as raised:
            session.VM.start(self.vm, False, False)
        self.assertIn(raised.exception.code, ("VDI_IN_USE", "OTHER_OPERATION_IN_PROGRESS"))
        wait_for("it has come so far", lambda: float(session.task.get_progress(task)) >= after, 10)
        begun = time.monotonic()
        session.task.cancel(task)
        self.refused("TASK_CANCELLED", wait_by_polling, session, task)
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(self.objects(), before)
        self.assert_clean()

    def test_killed_or_stopped_it_is_undone(self):
        before = self.objects()
        for end in (self.a.kill, self.a.stop):
            self.begin(self.session.Async.VM.clone, self.vm, "new")
            self.assertEqual(set(self.session.VM.get_current_operations(self.vm).values()), {"clone"})
            end()
            self.a.start()
            self.session = self.a.session
            self.assertEqual(self.objects(), before)
            self.assertEqual(len(self.files()), 2)
            self.assert_clean()


if __name__ == "__main__":
    unittest.main(verbosity=2)
