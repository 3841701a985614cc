# SPDX-License-Identifier: Apache-2.0
"""Two pools and a VM whose move takes seconds: what the tests of failures start from."""

import os
import unittest

from ferrytest import MIB, Failure, Move, Pool, allocated, has_failed, wait_for
from vmstate import different, vm_state
from xensession import wait_by_polling

# A copy that takes seconds: long enough to be met in the middle.
SLOW = {
    "migration_bandwidth": "8MiB",
    "migration_heartbeat": "500ms",
    "migration_lease": "3s",
    "migration_abandon": "6s",
    "migration_peer_timeout": "5s",
}
DISK = 32 * MIB


class SlowMove(unittest.TestCase):
    maxDiff = None
    settings = {}    # of both pools, beside SLOW
    settings_b = {}  # of the destination alone

    def setUp(self):
        super().setUp()
        self.a = self.enterContext(Pool("A", **SLOW, **self.settings))
        self.b = self.enterContext(Pool("B", **SLOW, **self.settings, **self.settings_b))
        self.sr_a, self.sr_b = self.a.sr_create(), self.b.sr_create()
        self.guests_a, self.guests_b = self.a.network_create(), self.b.network_create()
        vdi = self.a.vdi_create(self.sr_a, DISK)
        self.a.vdi_write(vdi, os.urandom(DISK))
        self.vm = self.a.vm_create("guest", [vdi], [self.guests_a])
        self.uuid = self.a.session.VM.get_uuid(self.vm)
        self.before = vm_state(self.a, self.vm)
        self.addCleanup(self.show_logs_of_a_failure)

    def show_logs_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(150)
            self.b.show_log(150)

    def move(self, **options):
        return Move(self.a, self.b, self.vm, self.sr_b, self.guests_b, options=options)

    # --- what must hold afterwards ---

    def assert_untouched(self, destination_answers=True):
        self.assertEqual(different(self.before, vm_state(self.a, self.vm)), [])
        self.a.wait_for_no_leftovers()
        self.assertIn("migrate_send", self.a.session.VM.get_allowed_operations(self.vm))
        if destination_answers:
            self.assert_destination_empty()

    def assert_destination_empty(self):
        self.b.wait_for_no_leftovers(30)
        self.assertIsNone(self.b.vm_by_uuid(self.uuid))
        self.assertEqual(self.b.session.VDI.get_all(), [])

    def assert_moved(self):
        arrived = self.b.vm_by_uuid(self.uuid)
        self.assertIsNotNone(arrived)
        self.assertEqual(different(self.before, vm_state(self.b, arrived)), [])
        self.assertIsNone(self.a.vm_by_uuid(self.uuid))
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def assert_refused(self, move, *details):
        """Both the check and the move say the same, and the source is untouched."""
        for call in (move.check, move.send):
            with self.subTest(call=call.__name__), self.assertRaises(Failure) as raised:
                call()
            self.assertEqual(raised.exception.details[:len(details)], list(details))
        self.assert_untouched()

    # --- meeting a copy in the middle ---

    def begin_and_wait_for_the_middle(self):
        task = self.move().begin()

        def in_the_middle():
            self.assertEqual(self.a.session.task.get_status(task), "pending",
                             self.a.session.task.get_error_info(task))
            folder = self.location(self.b, self.sr_b)
            held = sum(allocated(os.path.join(folder, name)) for name in os.listdir(folder))
            return DISK // 8 <= held < DISK
        wait_for("the copy is under way", in_the_middle, 20)
        return task

    @staticmethod
    def location(pool, sr):
        pbd = pool.session.SR.get_PBDs(sr)[0]
        return pool.session.PBD.get_device_config(pbd)["location"]

    def assert_task_fails(self, task, *codes, timeout=60):
        with self.assertRaises(Failure) as raised:
            wait_by_polling(self.a.session, task, timeout)
        self.assertIn(raised.exception.code, codes, raised.exception.details)
        return raised.exception
