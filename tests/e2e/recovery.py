#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A process dies, hangs or is stopped in the middle of a copy: the move goes on and ends well, or ends with the
right error and leaves nothing."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from slowmove import SlowMove
from xensession import wait_by_polling


class Recovery(SlowMove):
    def assert_task_ends_well(self, task):
        """The task outlives the agent that began it: it names the VM in the other pool."""
        arrived = wait_by_polling(self.a.session, task, 60)
        self.assertEqual(arrived, self.b.vm_by_uuid(self.uuid))

    def test_the_receiver_dies_and_does_not_come_back(self):
        task = self.begin_and_wait_for_the_middle()
        self.b.kill()
        self.assert_task_fails(task, "CANNOT_CONTACT_HOST",
                               "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED", timeout=20)
        self.assert_untouched(destination_answers=False)
        self.b.start()
        self.assert_destination_empty()

    def test_the_receiver_dies_and_comes_back(self):
        task = self.begin_and_wait_for_the_middle()
        self.b.kill()
        self.b.start()
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()

    def test_the_sender_dies_and_comes_back(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.kill()
        self.a.start()
        self.assert_task_ends_well(task)
        self.assert_moved()

    def test_both_die_and_come_back(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.kill()
        self.b.kill()
        self.b.start()
        self.a.start()
        self.assert_task_ends_well(task)
        self.assert_moved()

    def test_the_source_host_reboots(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.reboot()
        self.a.start()
        self.assert_task_ends_well(task)
        self.assert_moved()

    def test_the_destination_host_reboots(self):
        task = self.begin_and_wait_for_the_middle()
        self.b.reboot()
        self.b.start()
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()

    def test_a_destination_that_is_gone_for_ever(self):
        """One command cleans the source's record; the VM is free at once."""
        task = self.begin_and_wait_for_the_middle()
        self.b.reboot()
        self.assert_task_fails(task, "CANNOT_CONTACT_HOST", "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED", timeout=20)
        self.assertIn("start", self.a.session.VM.get_allowed_operations(self.vm))
        (_, record), = self.a.session.migration.get_all_records().items()
        self.assertIn("the VM is at the source with its disks, Halted; next: see that the destination runs", record["outcome"])
        self.assertEqual(self.a.session.task.get_other_config(task)["ferry:outcome"], record["outcome"])
        if record["state"] == "ABORTING":
            done = self.a.ferry("migration", "forget", record["uuid"])
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_untouched(destination_answers=False)
        self.assertEqual(self.a.session.migration.get_all_records().popitem()[1]["state"], "FAILED")
        self.b.start()

    def test_the_sender_dies_and_does_not_come_back(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.kill()
        self.assert_destination_empty()
        self.a.start()
        self.assert_task_fails(task, "INTERNAL_ERROR", timeout=30)
        self.assert_untouched()

    def test_tgtd_dies(self):
        task = self.begin_and_wait_for_the_middle()
        pid, = self.b.tgtds()
        os.kill(pid, signal.SIGKILL)
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()

    def test_tgtd_hangs(self):
        task = self.begin_and_wait_for_the_middle()
        pid, = self.b.tgtds()
        os.kill(pid, signal.SIGSTOP)
        wait_by_polling(self.a.session, task, 90)
        self.assert_moved()

    def test_a_task_can_be_cancelled_after_a_restart(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.kill()
        self.a.start()
        self.a.session.task.cancel(task)
        self.assert_task_fails(task, "TASK_CANCELLED", timeout=20)
        self.assert_untouched()

    def test_a_stop_of_the_sender_is_a_pause(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.restart()
        self.assert_task_ends_well(task)
        self.assert_moved()


if __name__ == "__main__":
    unittest.main(verbosity=2)
