#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""More moves than a host may send at once wait for their turn: visibly, in order, and without a trace until they begin."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, Move, Pool, wait_for
from xensession import Failure

PATIENCE = 120


class QueueCase(unittest.TestCase):
    SETTINGS = {}

    def setUp(self):
        self.a = self.enterContext(Pool("A", migration_bandwidth="1MiB", **self.SETTINGS))
        self.b = self.enterContext(Pool("B"))
        self.sr_a, self.sr_b = self.a.sr_create(), self.b.sr_create()

    def new_vm(self, label, size=MIB):
        vdi = self.a.vdi_create(self.sr_a, size)
        self.a.vdi_write(vdi, os.urandom(size))
        return self.a.vm_create(label, [vdi])

    def begin(self, vm):
        return Move(self.a, self.b, vm, self.sr_b).begin()

    def record(self, task):
        """The migration's, that the task names; None: it names none yet."""
        uuid = self.a.session.task.get_other_config(task).get("ferry:migration")
        return uuid and self.a.session.migration.get_record(self.a.session.migration.get_by_uuid(uuid))

    def state(self, task):
        record = self.record(task)
        return record["state"] if record else None

    def queued(self, task):
        wait_for("it waits", lambda: self.state(task) == "QUEUED", PATIENCE)
        return self.record(task)

    def ended(self, task, status):
        wait_for("the task ends", lambda: self.a.session.task.get_status(task) != "pending", PATIENCE)
        record = self.a.session.task.get_record(task)
        self.assertEqual(record["status"], status, record["error_info"])
        return record

    def occupied(self, label="first", size=8 * MIB):
        """The task of a move that takes the only place there is."""
        task = self.begin(self.new_vm(label, size))
        wait_for("it is sent", lambda: self.state(task) == "COPYING", PATIENCE)
        return task

    def cancel(self, task):
        self.a.session.task.cancel(task)
        self.ended(task, "cancelled")

    def assert_untouched(self, vm):
        record = self.a.session.VM.get_record(vm)
        self.assertEqual((record["power_state"], record["current_operations"]), ("Halted", {}))
        self.assertIn("migrate_send", record["allowed_operations"])
        self.assertIn("start", record["allowed_operations"])


class Queue(QueueCase):
    SETTINGS = {"migration_max_sending": 1, "migration_max_queued": 3}

    def test_they_begin_in_the_order_in_which_they_came(self):
        first = self.occupied()
        vms = [self.new_vm(f"later {i}", 64 << 10) for i in range(3)]
        tasks = []
        for vm in vms:
            tasks.append(self.begin(vm))
            self.queued(tasks[-1])
        for i, task in enumerate(tasks):
            wait_for("its place", lambda task=task, i=i: int(self.record(task)["queue_place"]) == i + 1, 10)
            config = self.a.session.task.get_other_config(task)
            self.assertEqual(config["ferry:state"], "QUEUED")
        record = self.record(tasks[0])
        self.assertEqual((record["VM"], record["role"], record["host"], record["peer"]),
                         (vms[0], "sender", self.a.host, self.b.url))
        for vm in vms:
            self.assert_untouched(vm)
        # Nothing of them is at the destination, and the journal here knows nothing of them.
        folder, = [pbd["device_config"]["location"] for pbd in self.b.session.PBD.get_all_records().values()]
        self.assertEqual(len(os.listdir(folder)), 1)
        self.assertEqual(len(self.a.stored_states("sender")), 1)
        self.assertIn("QUEUED", self.a.ferry("migration", "list").stdout)
        self.assertEqual(self.a.session.doctor.examine(self.a.host), [])
        # What is one too many, and the same VM once more.
        with self.assertRaises(Failure) as raised:
            Move(self.a, self.b, self.new_vm("too many"), self.sr_b).send()
        self.assertEqual(raised.exception.details, ["TOO_MANY_STORAGE_MIGRATES", "1"])
        with self.assertRaises(Failure) as raised:
            Move(self.a, self.b, vms[1], self.sr_b).send()
        self.assertEqual(raised.exception.details,
                         ["OTHER_OPERATION_IN_PROGRESS", "VM", vms[1], "migrate_send", tasks[1]])
        self.cancel(first)
        ends = [self.ended(task, "success")["finished"] for task in tasks]
        self.assertEqual(ends, sorted(ends))
        begun = [self.record(task)["started"] for task in tasks]
        self.assertEqual(begun, sorted(begun))
        self.assertEqual([int(self.record(task)["queue_place"]) for task in tasks], [0, 0, 0])
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_one_that_waits_is_cancelled_at_once(self):
        first = self.occupied()
        vms = [self.new_vm(f"later {i}") for i in range(2)]
        by_task, by_name = [self.begin(vm) for vm in vms]
        self.queued(by_task)
        uuid = self.queued(by_name)["uuid"]
        begun = time.monotonic()
        self.cancel(by_task)
        self.assertEqual(self.a.ferry("migration", "cancel", uuid).returncode, 0)
        self.ended(by_name, "cancelled")
        self.assertLess(time.monotonic() - begun, 5)
        for task in (by_task, by_name):
            record = wait_for("it is on record", lambda task=task: self.state(task) == "CANCELLED" and self.record(task), 5)
            self.assertEqual((record["cancelled_in"], int(record["queue_place"])), ("QUEUED", 0))
            self.assertIn("root", record["cancelled_by"])
        for vm in vms:
            self.assert_untouched(vm)
        self.assertEqual(self.state(first), "COPYING")
        with self.assertRaises(Failure) as raised:
            self.a.session.migration.cancel(uuid)
        self.assertEqual(raised.exception.code, "OPERATION_NOT_ALLOWED")
        self.cancel(first)

    def test_what_has_changed_meanwhile_is_said(self):
        first = self.occupied()
        gone, blocked, whole = [self.new_vm(label, 64 << 10) for label in ("gone", "blocked", "whole")]
        tasks = [self.begin(vm) for vm in (gone, blocked, whole)]
        for task in tasks:
            self.queued(task)
        self.a.session.VM.destroy(gone)
        self.a.session.VM.add_to_blocked_operations(blocked, "migrate_send", "the books are closed")
        self.cancel(first)
        self.assertEqual(self.ended(tasks[0], "failure")["error_info"], ["HANDLE_INVALID", "VM", gone])
        self.assertEqual(self.ended(tasks[1], "failure")["error_info"],
                         ["OPERATION_BLOCKED", blocked, "the books are closed"])
        record = self.record(tasks[1])
        self.assertEqual((record["state"], record["error_info"][0]), ("FAILED", "OPERATION_BLOCKED"))
        self.assertIn("had not begun", record["outcome"])
        self.ended(tasks[2], "success")

    def test_a_restart_fails_those_that_wait(self):
        first = self.occupied()
        vms = [self.new_vm(f"later {i}") for i in range(2)]
        tasks = [self.begin(vm) for vm in vms]
        for task in tasks:
            self.queued(task)
        for end in (self.a.kill, self.a.stop):
            end()
            self.a.start()
            for task in tasks:
                error = self.ended(task, "failure")["error_info"]
                self.assertIn("waited for its turn", error[1])
                self.assertEqual((self.state(task), self.record(task)["error_info"]), ("FAILED", error))
            for vm in vms:
                self.assert_untouched(vm)
            # What was sent goes on, and is waited for.
            self.assertEqual(self.a.session.task.get_status(first), "pending")
            if end == self.a.kill:
                tasks = [self.begin(vm) for vm in vms]
                for task in tasks:
                    self.queued(task)
        self.cancel(first)
        self.a.wait_for_no_leftovers()


class Hundred(QueueCase):
    SETTINGS = {"migration_max_sending": 8, "migration_max_queued": 100}

    def test_a_hundred_wait_while_eight_are_sent(self):
        vms = [self.new_vm(f"{i}", 48 * MIB if i < 8 else 4096) for i in range(108)]
        uuids = [self.a.session.VM.get_uuid(vm) for vm in vms]
        tasks = [self.begin(vm) for vm in vms[:8]]
        for task in tasks:
            wait_for("it is sent", lambda task=task: self.state(task) == "COPYING", PATIENCE)
        tasks += [self.begin(vm) for vm in vms[8:]]

        def states():
            return [record["state"] for record in self.a.session.migration.get_all_records().values()]
        wait_for("all others wait", lambda: states().count("QUEUED") == 100, PATIENCE)
        for task in tasks[:8]:
            self.a.session.migration.set_bandwidth(self.record(task)["uuid"], "0")
        most = 0
        while any(self.a.session.task.get_status(task) == "pending" for task in tasks[-8:]):
            most = max(most, sum(state not in ("QUEUED", "DONE", "FAILED", "CANCELLED") for state in states()))
            time.sleep(0.2)
        for task in tasks:
            self.ended(task, "success")
        self.assertLessEqual(most, 8)
        self.assertEqual(sorted(self.b.session.VM.get_record(vm)["uuid"] for vm in self.b.session.VM.get_all()
                                if self.b.session.VM.get_uuid(vm) in uuids), sorted(uuids))
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()


if __name__ == "__main__":
    unittest.main(verbosity=2)
