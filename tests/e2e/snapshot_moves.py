#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A VM moves with its snapshots: the tree of them is at the destination as it was at the source, which keeps nothing of it;
what fails before the commit leaves all of it where it was.

FERRY_LONG=1: more of the failures.
"""

import json
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, MIB, NULL, PASSWORD, Move, Pool, allocated, digest, has_failed, wait_for  # noqa: E402
from livemove import LiveCase, destroy  # noqa: E402
from vmstate import family_state  # noqa: E402
from xensession import Failure, wait_by_polling  # noqa: E402

SETTINGS = {
    "migration_heartbeat": "500ms",
    "migration_lease": "3s",
    "migration_abandon": "6s",
    "migration_peer_timeout": "5s",
}
LONG = bool(os.environ.get("FERRY_LONG"))
DISK = 8 * MIB


class Family(unittest.TestCase):
    """Pools A and B, and in A a VM with two snapshots in a chain: one was gone back to before the other was taken."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A", points=True, **SETTINGS))
        cls.b = cls.enterClassContext(Pool("B", points=True, **SETTINGS))
        cls.sr = {pool: pool.sr_create() for pool in (cls.a, cls.b)}
        cls.net = {pool: pool.network_create() for pool in (cls.a, cls.b)}

    def setUp(self):
        self.addCleanup(self.show_logs_of_a_failure)
        self.session = self.a.session
        self.addCleanup(self.forget_all)
        self.set_default_sr(NULL)

    def show_logs_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(150)
            self.b.show_log(150)

    def forget_all(self):
        for pool in (self.a, self.b):
            session = pool.session
            for vm, record in session.VM.get_all_records().items():
                if not record["is_control_domain"] and not record["is_default_template"]:
                    session.VM.destroy(vm)
            for vdi in session.VDI.get_all():
                session.VDI.destroy(vdi)

    def set_default_sr(self, sr):
        """Of the destination."""
        pools = self.b.session.pool
        pools.set_default_SR(pools.get_all()[0], sr)

    def write(self, vm, number, size=3 * MIB):
        self.a.vdi_write(self.a.disks_of(vm)[number], os.urandom(size), MIB)

    def new_family(self, n_disks=2, image="raw", size=DISK):
        vdis = [self.a.vdi_create(self.sr[self.a], size, f"disk {i}", image) for i in range(n_disks)]
        vm = self.a.vm_create("web", vdis, [self.net[self.a]] * 2)
        if image == "raw":
            for number in range(n_disks):
                self.write(vm, number)
        first = self.session.VM.snapshot(vm, "first")
        self.session.VM.set_other_config(first, {"kept": "yes"})
        self.write(vm, 0)
        self.session.VM.revert(first)
        self.write(vm, n_disks - 1)
        second = self.session.VM.snapshot(vm, "second")
        self.write(vm, 0)
        self.session.VM.set_name_description(second, "the later one")
        return vm, first, second

    def move(self, vm, **options):
        return Move(self.a, self.b, vm, self.sr[self.b], self.net[self.b], options=options)

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        return raised.exception.details[1:]

    def assert_empty(self, pool):
        """Nothing of any VM is there."""
        pool.wait_for_no_leftovers(30)
        for kind in (pool.session.VDI, pool.session.VBD, pool.session.VIF):
            self.assertEqual(kind.get_all(), [])
        names = [vm["name_label"] for vm in pool.session.VM.get_all_records().values() if not vm["is_control_domain"]]
        self.assertEqual(names, [])
        for sr in pool.session.SR.get_all():
            self.assertEqual(int(pool.session.SR.get_virtual_allocation(sr)), 0)
        self.assertEqual([file for _, _, files in os.walk(pool.path("sr")) for file in files
                          if file.endswith((".raw", ".qcow2"))], [])

    def assert_whole(self, pool, before, vm):
        """All of it, with nothing marked."""
        self.assertEqual(family_state(pool, vm), before)
        pool.wait_for_no_leftovers(30)
        session = pool.session
        for ref in (vm, *session.VM.get_snapshots(vm)):
            self.assertEqual(session.VM.get_current_operations(ref), {})
            for vdi in pool.disks_of(ref):
                self.assertEqual(session.VDI.get_current_operations(vdi), {})


class Moves(Family):

    def assert_moved(self, vm, send):
        """The VM's ref in B."""
        uuid, before = self.session.VM.get_uuid(vm), family_state(self.a, vm)
        arrived = send(self.move(vm))
        self.assertEqual(self.b.vm_by_uuid(uuid), arrived)
        self.assert_whole(self.b, before, arrived)
        self.assert_empty(self.a)
        return arrived

    def test_a_tree_of_snapshots_moves_and_can_be_gone_back_to(self):
        vm, first, second = self.new_family()
        kept = {self.session.VM.get_uuid(ref): [digest(self.a.vdi_path(vdi)) for vdi in self.a.disks_of(ref)]
                for ref in (first, second)}
        self.move(vm).check()
        arrived = self.assert_moved(vm, Move.send)
        session = self.b.session
        self.assertIn("start", session.VM.get_allowed_operations(arrived))
        for uuid, digests in kept.items():
            snapshot = self.b.vm_by_uuid(uuid)
            self.assertIn("revert", session.VM.get_allowed_operations(snapshot))
            disks = self.b.disks_of(arrived)
            session.VM.revert(snapshot)
            self.assertEqual(self.b.disks_of(arrived), disks)
            self.assertEqual([digest(self.b.vdi_path(vdi)) for vdi in disks], digests)
            self.assertEqual(session.VM.get_parent(arrived), snapshot)
        # And home again.
        before = family_state(self.b, arrived)
        home = Move(self.b, self.a, arrived, self.sr[self.a], self.net[self.a]).send()
        self.assert_whole(self.a, before, home)
        self.assert_empty(self.b)

    def test_where_the_disks_of_snapshots_go(self):
        """Where the map says, else where the disk goes that they are of, else to the default SR."""
        vm, first, second = self.new_family()
        other, third = self.b.sr_create("other"), self.b.sr_create("third")
        named, = [vdi for vdi in self.a.disks_of(second) if self.session.VDI.get_name_label(vdi) == "disk 0"]
        disks = self.a.disks_of(vm)
        self.session.VBD.destroy(next(vbd for vbd in self.session.VM.get_VBDs(vm)
                                      if self.session.VBD.get_VDI(vbd) == disks[1]))
        before = family_state(self.a, vm)
        move = self.move(vm)
        move.vdi_map[named] = other
        self.set_default_sr(NULL)
        lost = self.refused("VDI_NOT_IN_MAP", move.check)[0]
        self.assertIn(lost, [self.a.disks_of(ref)[1] for ref in (first, second)])
        self.set_default_sr(third)
        arrived = move.send()
        # The disk that it was taken of is not the VM's any more, and stays behind.
        gone = self.session.VDI.get_uuid(disks[1])
        for one in before.values():
            one["origins"] = [(own, False if of == gone else of) for own, of in one["origins"]]
        self.assertEqual(family_state(self.b, arrived), before)
        session = self.b.session
        places = {}
        for snapshot in session.VM.get_snapshots(arrived):
            places[session.VM.get_name_label(snapshot)] = [session.VDI.get_SR(vdi) for vdi in self.b.disks_of(snapshot)]
        self.assertEqual(places, {"first": [self.sr[self.b], third], "second": [other, third]})
        self.assertEqual(self.session.VDI.get_all(), [disks[1]])

    def test_a_qcow2_image_and_a_disk_that_is_gone(self):
        vm, first, _ = self.new_family(image="raw")
        vdi = self.a.vdi_create(self.sr[self.a], DISK, "packed", "qcow2")
        self.session.VBD.create({"VM": vm, "VDI": vdi, "userdevice": "7", "bootable": False, "mode": "RW",
                                 "type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "",
                                 "qos_algorithm_params": {}})
        subprocess.run(["qemu-io", "-c", "write -P 7 1M 3M", self.a.vdi_path(vdi)], check=True,
                       stdout=subprocess.DEVNULL)
        packed = self.session.VM.snapshot(vm, "packed")
        self.session.VDI.destroy(self.a.disks_of(vm)[1])
        uuid = self.session.VM.get_uuid(packed)
        self.set_default_sr(self.sr[self.b])
        arrived = self.move(vm).send()
        session, snapshot = self.b.session, self.b.vm_by_uuid(uuid)
        image = self.b.vdi_path(self.b.disks_of(snapshot)[2])
        self.assertTrue(image.endswith(".raw"))
        wanted = bytes(MIB) + b"\7" * 3 * MIB + bytes(4 * MIB)
        with open(image, "rb") as file:
            self.assertEqual(file.read(), wanted)
        session.VM.revert(snapshot)
        self.assertEqual(len(self.b.disks_of(arrived)), 3)
        self.assertEqual(digest(self.b.vdi_path(self.b.disks_of(arrived)[1])),
                         digest(self.b.vdi_path(self.b.disks_of(snapshot)[1])))
        self.assert_empty(self.a)

    def test_a_copy_has_no_snapshots(self):
        vm, _, _ = self.new_family()
        before = family_state(self.a, vm)
        arrived = self.move(vm, copy="true").send()
        session = self.b.session
        self.assertEqual((session.VM.get_snapshots(arrived), session.VM.get_parent(arrived)), ([], NULL))
        self.assertEqual(len(session.VDI.get_all()), 2)
        self.assertNotEqual(session.VM.get_uuid(arrived), self.session.VM.get_uuid(vm))
        self.assert_whole(self.a, before, vm)

    def test_what_the_destination_refuses_of_a_snapshot(self):
        vm, first, _ = self.new_family(n_disks=1)
        before = family_state(self.a, vm)
        # A card that nothing maps.
        card = self.session.VIF.create({"device": "5", "network": self.net[self.a], "VM": vm, "MAC": "",
                                        "MTU": "1500", "other_config": {}, "qos_algorithm_type": "",
                                        "qos_algorithm_params": {}})
        third = self.session.VM.snapshot(vm, "with a card")
        self.session.VIF.destroy(card)
        cards = self.session.VM.get_VIFs(third)
        self.assertIn(self.refused("VIF_NOT_IN_MAP", self.move(vm).check)[0], cards)
        move = self.move(vm)
        move.vif_map[next(vif for vif in cards if self.session.VIF.get_device(vif) == "5")] = self.net[self.b]
        move.check()
        for vdi in self.a.disks_of(third):
            self.session.VM.destroy(third)
            self.session.VDI.destroy(vdi)
        # The same snapshot is there already.
        file = self.a.path("metadata.tar")
        for pool, *args in ((self.a, "export-metadata", "web", file), (self.b, "import-metadata", file, "--restore", "--force")):
            done = pool.ferry("vm", *args)
            self.assertEqual(done.returncode, 0, done.stderr)
        b = self.b.session
        b.VM.destroy(self.b.vm_by_uuid(self.session.VM.get_uuid(vm)))
        there = self.b.vm_by_uuid(self.session.VM.get_uuid(first))
        self.assertEqual(self.refused("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", self.move(vm).check)[0], there)
        self.assert_whole(self.a, before, vm)

    def test_too_little_room_for_the_snapshots_is_seen_before(self):
        folder = self.b.path("small")
        os.mkdir(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6M,mode=777", "none", folder], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=False)
        small = self.b.sr_create("small", folder=folder)
        vm, _, _ = self.new_family(n_disks=1)
        before = family_state(self.a, vm)
        move = Move(self.a, self.b, vm, small, self.net[self.b])
        self.refused("SR_BACKEND_FAILURE_44", move.check)
        self.refused("SR_BACKEND_FAILURE_44", move.send)
        self.assert_whole(self.a, before, vm)
        # The VM alone has the room.
        copied = Move(self.a, self.b, vm, small, self.net[self.b], options={"copy": "true"}).send()
        self.b.session.VM.destroy(copied)
        for vdi in self.b.session.VDI.get_all():
            self.b.session.VDI.destroy(vdi)
        self.b.session.SR.forget(small)

    def ferry(self, *args):
        done = subprocess.run([os.path.join(BIN, "ferry"), "--config", self.a.path("both.conf"), *args],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_the_command_line_shows_what_moves(self):
        vm, _, second = self.new_family(n_disks=1)
        before = family_state(self.a, vm)
        own, of_second = self.a.disks_of(vm)[0], self.a.disks_of(second)[0]
        self.b.sr_create("elsewhere")
        with open(os.open(self.a.path("both.conf"), os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            for pool in (self.a, self.b):
                file.write(f"[server {pool.name}]\nurl = {pool.url}\nuser = root\npassword = {PASSWORD}\n")
        for pool in (self.a, self.b):
            self.ferry("trust", pool.name, "--fingerprint", pool.fingerprint())
        command = ["--server", "A", "vm", "migrate", "web", "--to", "B", "--network", "guests", "--map", "disk 0=local"]
        self.assertEqual(len(json.loads(self.ferry("--json", *command, "--dry-run", "--copy"))["disks"]), 1)
        command += ["--map", f"{self.session.VDI.get_uuid(of_second)}=elsewhere"]
        plan = json.loads(self.ferry("--json", *command, "--dry-run"))
        self.assertEqual([(disk.get("snapshot"), disk["vdi"] == self.session.VDI.get_uuid(own), disk["to_sr"])
                          for disk in plan["disks"]],
                         [(None, True, "local"), ("first", False, "local"), ("second", False, "elsewhere")])
        self.assertEqual(len(plan["vifs"]), 2)
        self.assertIn("SNAPSHOT", self.ferry(*command, "--dry-run"))
        told = self.ferry(*command)
        self.assertIn("disk 0 (snapshot second)", told)
        self.assert_whole(self.b, before, self.b.vm_by_uuid(next(iter(before))))
        self.assert_empty(self.a)


class Failures(Family):
    """Slow enough to be met in the middle."""

    def setUp(self):
        super().setUp()
        self.vm, self.first, self.second = self.new_family()
        self.uuid = self.session.VM.get_uuid(self.vm)
        self.before = family_state(self.a, self.vm)

    def begin(self):
        """A task that is in the middle of the copy."""
        task = self.move(self.vm, bandwidth=str(4 * MIB)).begin()

        def in_the_middle():
            self.assertEqual(self.session.task.get_status(task), "pending", self.session.task.get_error_info(task))
            held = sum(allocated(os.path.join(folder, name)) for folder, _, names in os.walk(self.b.path("sr"))
                       for name in names)
            return held >= 5 * MIB
        wait_for("the copy is under way", in_the_middle, 20)
        return task

    def assert_stayed(self, task, code):
        with self.assertRaises(Failure) as raised:
            wait_by_polling(self.a.session, task, 60)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        self.assert_empty(self.b)
        self.assert_whole(self.a, self.before, self.vm)
        self.assertIn("revert", self.a.session.VM.get_allowed_operations(self.first))

    def assert_moved(self, task):
        arrived = wait_by_polling(self.a.session, task, 60)
        self.assertEqual(arrived, self.b.vm_by_uuid(self.uuid))
        self.assert_whole(self.b, self.before, arrived)
        self.assert_empty(self.a)

    def test_what_is_refused_meanwhile_and_a_cancel(self):
        task = self.begin()
        session = self.session
        for function, *args in ((session.VM.revert, self.first), (session.VM.destroy, self.first),
                                (session.VM.clone, self.first, "again"), (session.VM.snapshot, self.vm, "third")):
            self.refused("OTHER_OPERATION_IN_PROGRESS", function, *args)
        self.refused("VDI_IN_USE", session.VDI.destroy, self.a.disks_of(self.first)[0])
        done = self.a.ferry("doctor")
        self.assertEqual(done.returncode, 0, done.stdout)
        config = session.task.get_other_config(task)
        told = [json.loads(text) for key, text in config.items() if key.startswith("ferry:disk:")]
        self.assertEqual(sorted(disk.get("snapshot", "") for disk in told), ["", "", "first", "first", "second", "second"])
        session.task.cancel(task)
        self.assert_stayed(task, "TASK_CANCELLED")

    def test_the_sender_dies_and_comes_back(self):
        task = self.begin()
        self.a.kill()
        self.a.start()
        self.session = self.a.session
        self.assert_moved(task)

    def dies_at(self, pool, point):
        """The agent of that pool, at that point; the VM arrives all the same."""
        pool.points.arm(point, "kill")
        task = self.move(self.vm).begin()
        pool.killed()
        pool.start()
        self.session = self.a.session
        self.assert_moved(task)

    if LONG:
        def test_the_receiver_dies_when_it_has_decided(self):
            self.dies_at(self.b, "decide.committed.after")

        def test_the_sender_dies_when_it_has_removed_all(self):
            self.dies_at(self.a, "state.sender.FINISHING.finished.before")

        def test_the_receiver_dies_before_it_decides(self):
            self.dies_at(self.b, "decide.committed.before")

        def test_the_sender_dies_when_it_knows_of_the_commit(self):
            self.dies_at(self.a, "state.sender.COMMITTING.committed.after")

    def test_an_import_that_fails_at_last(self):
        self.b.points.arm("decide.committed.before", "error EIO")
        task = self.move(self.vm).begin()
        self.assert_stayed(task, "INTERNAL_ERROR")

    def test_the_receiver_dies_and_a_snapshot_is_renamed(self):
        """It keeps its new name."""
        task = self.begin()
        self.b.kill()
        self.b.start()
        self.session.VM.set_name_label(self.second, "renamed")
        uuid = self.session.VM.get_uuid(self.second)
        self.before[uuid]["VM"]["name_label"] = "renamed"
        self.assert_moved(task)


class Running(LiveCase):
    """The guest writes all the time; nobody writes to its snapshots."""

    disks = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:30")]

    def snapshots(self, pool):
        """Their states; what they are to a VM that runs is compared without its content."""
        vm = pool.vm_by_uuid(self.guest.uuid)
        state = family_state(pool, vm)
        own = state.pop(self.guest.uuid)
        return state, own["VM"]["parent"], own["VM"]["snapshots"], own["origins"]

    @classmethod
    def forget_guest(cls):
        for pool in (cls.a, cls.b):
            vm = cls.guest and pool.session and pool.vm_by_uuid(cls.guest.uuid)
            for snapshot in pool.session.VM.get_snapshots(vm) if vm else ():
                destroy(pool, snapshot)
        super().forget_guest()

    def snapshot(self, name):
        return self.a.session.VM.snapshot(self.guest.vm, name)

    def begin_until(self, state):
        task, watch = self.begin(bandwidth=str(16 * MIB))
        self.assertEqual(watch.wait_for_state(state), state)
        return task

    def test_snapshots_move_with_a_guest_that_runs(self):
        self.snapshot("first")
        second = self.snapshot("second")
        before = self.snapshots(self.a)
        self.assertEqual(before[1], self.a.session.VM.get_uuid(second))
        record = self.go(there=True)
        self.assertEqual((record["state"], record["live"]), ("DONE", True))
        print(f"pause: {record['pause']}", flush=True)
        self.assertEqual(self.snapshots(self.b), before)
        self.assertEqual(self.a.session.VDI.get_all(), [])
        self.assert_content()
        self.guest.power_off()
        session = self.b.session
        snapshot = session.VM.get_snapshots(self.guest.vm)[0]
        session.VM.revert(snapshot)
        self.assertEqual([digest(self.b.vdi_path(vdi)) for vdi in self.b.disks_of(self.guest.vm)],
                         [digest(self.b.vdi_path(vdi)) for vdi in self.b.disks_of(snapshot)])

    def test_a_move_that_breaks_off(self):
        self.snapshot("first")
        before = self.snapshots(self.a)
        for state in ("COPYING", "CONVERGING") if LONG else ("CONVERGING",):
            begun = time.monotonic()
            task = self.begin_until(state)
            self.a.session.task.cancel(task)
            self.assert_stayed(task, begun, "TASK_CANCELLED")
            self.assertEqual(self.snapshots(self.a), before)
        deaths = [("COPYING", self.a), ("CONVERGING", self.a), ("COPYING", self.b), ("CONVERGING", self.b)]
        for state, pool in deaths if LONG else deaths[:1]:
            begun = time.monotonic()
            self.begin_until(state)
            pool.kill()
            pool.start()
            where = self.where_it_ended()
            self.assert_well(where, begun)
            self.assertEqual(self.snapshots(where), before)
            self.assert_content()
            if where is self.b:
                self.go(there=False)
                self.assertEqual(self.snapshots(self.a), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
