#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host of a pool is emptied: its guests go to the others that reach their disks, and what cannot leave is named."""

import os
import shutil
import signal
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, NULL, Pool, give, has_failed, wait_for
from xensession import Failure

MEMORY = {f"memory_{name}": str(64 * MIB) for name in ("static_max", "dynamic_max", "dynamic_min", "static_min")}


class Evacuate(unittest.TestCase):
    """The pool of A, with B; they share a repository. One guest is sent at a time, and the queue has room for one."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="f.shared.", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, folder)
        give(folder)
        settings = {"migration_max_sending": 1, "migration_max_queued": 1}
        cls.a = cls.enterClassContext(Pool("A", **settings))
        cls.b = cls.enterClassContext(Pool("B", **settings)).join(cls.a)
        cls.api = cls.a.session
        cls.sr = {host: host.sr_create(f"of {host.name}") for host in (cls.a, cls.b)}
        cls.shared = cls.a.sr_create("shared", folder, shared=True)
        cls.b.sr_attach(cls.shared, folder)
        wait_for("B is live", lambda: cls.api.host_metrics.get_live(cls.api.host.get_metrics(cls.b.host)), 20)

    def setUp(self):
        self.addCleanup(self.show_logs_of_a_failure)
        self.vms = []

    def tearDown(self):
        for vm in self.vms:
            if self.api.VM.get_power_state(vm) != "Halted":
                self.api.VM.hard_shutdown(vm)
            disks = self.a.disks_of(vm)
            self.api.VM.destroy(vm)
            for vdi in disks:
                self.api.VDI.destroy(vdi)
        for host in (self.a, self.b):
            self.api.host.enable(host.host)
            host.wait_for_no_leftovers()

    def show_logs_of_a_failure(self):
        if has_failed(self):
            for host in (self.a, self.b):
                host.show_log(80)

    def guest(self, label, host, sr):
        vm = self.a.vm_create(label, [host.vdi_create(sr, MIB)], **MEMORY)
        self.vms.append(vm)
        self.api.VM.start_on(vm, host.host, False, False)
        return vm

    def at(self, vm):
        return self.api.VM.get_resident_on(vm), self.api.VM.get_power_state(vm)

    def refused(self, details, call, *args):
        with self.assertRaises(Failure) as raised:
            call(*args)
        self.assertEqual(raised.exception.details, details)

    def test_all_go_elsewhere(self):
        vms = [self.guest(f"guest {i}", self.b, self.shared) for i in range(3)]
        stays = self.guest("of A", self.a, self.shared)
        self.assertEqual(self.api.host.get_vms_which_prevent_evacuation(self.b.host), {})
        self.assertEqual(self.api.host.assert_can_evacuate(self.b.host), "")
        before = set(self.api.task.get_all())
        known = set(self.api.migration.get_all())
        task = self.api.Async.host.evacuate(self.b.host)
        wait_for("it is done", lambda: self.api.task.get_status(task) != "pending", 60)
        record = self.api.task.get_record(task)
        self.assertEqual((record["status"], record["error_info"]), ("success", []))
        self.assertEqual(record["other_config"],
                         {f"ferry:vm:{self.api.VM.get_uuid(vm)}": "moved" for vm in vms})
        for vm in vms + [stays]:
            self.assertEqual(self.at(vm), (self.a.host, "Running"))
        self.assertFalse(self.api.host.get_enabled(self.b.host))
        moves = [t for ref, t in self.api.task.get_all_records().items()
                 if t["name_label"] == "VM.pool_migrate" and ref not in before]
        self.assertEqual([t["status"] for t in moves], ["success"] * 3)
        self.assertEqual({int(m["bytes_sent"]) for ref, m in self.api.migration.get_all_records().items()
                          if ref not in known}, {0})
        # Back: of the coordinator itself, by the command line.
        self.api.host.enable(self.b.host)
        done = self.a.ferry("host", "evacuate", "host-A")
        self.assertEqual((done.returncode, done.stdout.count("moved")), (0, 4), done)
        for vm in vms + [stays]:
            self.assertEqual(self.at(vm), (self.b.host, "Running"))

    def test_what_cannot_leave_is_named_and_nothing_moves(self):
        local = self.guest("local", self.b, self.sr[self.b])
        paused = self.guest("paused", self.b, self.shared)
        free = self.guest("free", self.b, self.shared)
        self.api.VM.pause(paused)
        reasons = {local: ["VM_REQUIRES_SR", local, self.sr[self.b]],
                   paused: ["VM_BAD_POWER_STATE", paused, "running", "paused"]}
        self.assertEqual(self.api.host.get_vms_which_prevent_evacuation(self.b.host), reasons)
        for call in (self.api.host.assert_can_evacuate, self.api.host.evacuate):
            with self.assertRaises(Failure) as raised:
                call(self.b.host)
            code, text = raised.exception.details
            self.assertEqual((code, sorted(text.split("|"))),
                             ("CANNOT_EVACUATE_HOST", sorted(",".join(each) for each in reasons.values())))
        self.assertTrue(self.api.host.get_enabled(self.b.host))
        self.assertEqual(self.at(free), (self.b.host, "Running"))
        done = self.a.ferry("host", "evacuate", "host-B", "--check")
        self.assertEqual(done.returncode, 1)
        self.assertIn("VM_REQUIRES_SR", done.stderr)
        # There is no other host that may have them.
        self.api.VM.unpause(paused)
        self.api.host.disable(self.a.host)
        self.assertEqual(self.api.host.get_vms_which_prevent_evacuation(self.b.host)[free],
                         ["VM_REQUIRES_SR", free, self.shared])

    def test_one_that_is_cancelled_stays_and_one_that_ended_is_gone(self):
        stays, moves, ends = (self.guest(name, self.b, self.shared) for name in ("stays", "moves", "ends"))
        uuid = {vm: self.api.VM.get_uuid(vm) for vm in (stays, moves, ends)}
        before = set(self.api.task.get_all())
        # None can be sent: the first waits at B's queue, and so do the others for their turn.
        os.kill(self.b.process.pid, signal.SIGSTOP)
        try:
            task = self.api.Async.host.evacuate(self.b.host, NULL, "1")

            def of_a_move():
                return next((ref for ref, t in self.api.task.get_all_records().items() if ref not in before
                             and t["name_label"] == "VM.pool_migrate"), None)
            first = wait_for("the first is to move", of_a_move, 20)
            record = self.api.task.get_record(first)
            vm = next(vm for vm in uuid if uuid[vm] in record["name_description"])
            self.assertEqual((vm, record["allowed_operations"]), (stays, ["cancel"]))
            # Long before its turn.
            self.api.Async.VM.hard_shutdown(ends)
            self.api.task.cancel(first)
        finally:
            os.kill(self.b.process.pid, signal.SIGCONT)
        wait_for("it is done", lambda: self.api.task.get_status(task) != "pending", 60)
        self.assertEqual(self.api.task.get_status(first), "cancelled")
        record = self.api.task.get_record(task)
        self.assertEqual(record["error_info"], ["CANNOT_EVACUATE_HOST", f"TASK_CANCELLED,{first}"])
        self.assertEqual([self.at(vm) for vm in (stays, moves, ends)],
                         [(self.b.host, "Running"), (self.a.host, "Running"), (NULL, "Halted")])
        self.assertEqual(record["other_config"], {
            f"ferry:vm:{uuid[stays]}": f"TASK_CANCELLED,{first}", f"ferry:vm:{uuid[moves]}": "moved",
            f"ferry:vm:{uuid[ends]}": "gone"})

    def test_a_cancel_leaves_the_rest_where_it_is(self):
        vms = [self.guest(f"guest {i}", self.b, self.shared) for i in range(3)]
        before = set(self.api.migration.get_all())
        task = self.api.Async.host.evacuate(self.b.host)
        wait_for("one moves", lambda: set(self.api.migration.get_all()) - before, 30)
        self.api.task.cancel(task)
        wait_for("it is done", lambda: self.api.task.get_status(task) != "pending", 60)
        self.assertEqual(self.api.task.get_status(task), "cancelled")
        wait_for("nothing moves", lambda: not any(self.api.VM.get_current_operations(vm) for vm in vms), 30)
        places = [self.at(vm) for vm in vms]
        self.assertIn((self.b.host, "Running"), places)
        self.assertLessEqual(set(places), {(self.a.host, "Running"), (self.b.host, "Running")})
        self.refused(["HANDLE_INVALID", "host", vms[0]], self.api.host.evacuate, vms[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
