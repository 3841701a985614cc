#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is refused or fails: the right error, the source as it was, nothing left at the destination."""

import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, NULL, Failure, give, small_folder
from slowmove import DISK, SlowMove
from vmstate import different, vm_state


class Failures(SlowMove):
    # --- wrong arguments ---

    def test_a_disk_missing_in_the_map(self):
        move = self.move()
        vdi, = move.vdi_map
        move.vdi_map = {}
        self.assert_refused(move, "VDI_NOT_IN_MAP", vdi)

    def test_an_interface_missing_in_the_map(self):
        move = self.move()
        vif, = move.vif_map
        move.vif_map = {}
        self.assert_refused(move, "VIF_NOT_IN_MAP", vif)

    def test_a_repository_that_the_destination_does_not_have(self):
        move = self.move()
        missing = "OpaqueRef:00000000-1111-2222-3333-444444444444"
        move.vdi_map = {vdi: missing for vdi in move.vdi_map}
        self.assert_refused(move, "HANDLE_INVALID", "SR", missing)

    def test_a_network_that_the_destination_does_not_have(self):
        move = self.move()
        missing = "OpaqueRef:00000000-1111-2222-3333-444444444444"
        move.vif_map = {vif: missing for vif in move.vif_map}
        self.assert_refused(move, "HANDLE_INVALID", "network", missing)

    def test_a_token_whose_session_is_not_one(self):
        move = self.move()
        move.token["session_id"] = "OpaqueRef:00000000-1111-2222-3333-444444444444"
        self.assert_refused(move, "SESSION_INVALID")

    def test_a_token_that_lacks_a_key(self):
        for key in ("host", "session_id", "master"):
            move = self.move()
            del move.token[key]
            with self.subTest(key=key):
                self.assert_refused(move, "INTERNAL_ERROR")

    def test_a_token_of_another_certificate(self):
        move = self.move()
        name, = (key for key in move.token if "fingerprint" in key)
        digits = move.token[name]
        move.token[name] = digits[:-1] + ("0" if digits[-1] != "0" else "1")
        self.assert_refused(move, "TLS_CONNECTION_FAILED")

    def test_a_vm_that_is_already_there(self):
        """The source was restored from a backup that is older than the move."""
        self.a.configure(migration_bandwidth="0")
        self.a.stop()
        backup = self.a.path("backup")
        for folder in ("state", "sr"):
            subprocess.run(["cp", "-a", self.a.path(folder), f"{backup}.{folder}"], check=True)
        self.a.start()
        self.move().send()
        self.assert_moved()
        vdis = self.b.session.VDI.get_all()
        self.a.stop()
        for folder in ("state", "sr"):
            shutil.rmtree(self.a.path(folder))
            os.rename(f"{backup}.{folder}", self.a.path(folder))
        self.a.start()
        arrived = vm_state(self.b, self.b.vm_by_uuid(self.uuid))
        for call in (self.move().check, self.move().send):
            with self.assertRaises(Failure) as raised:
                call()
            self.assertIn(raised.exception.code,
                          ("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", "VM_BAD_POWER_STATE",
                           "DUPLICATE_VM"))
        self.assert_untouched(destination_answers=False)
        self.assertEqual(
            different(arrived, vm_state(self.b, self.b.vm_by_uuid(self.uuid))), [])
        self.assertEqual(self.b.session.VDI.get_all(), vdis)
        self.b.wait_for_no_leftovers()

    def test_a_destination_that_is_not_there(self):
        move = self.move()
        self.b.stop()
        begun = time.monotonic()
        with self.assertRaises(Failure) as raised:
            move.send()
        self.assertLess(time.monotonic() - begun, 15)
        self.assertIn(raised.exception.code,
                      ("CANNOT_CONTACT_HOST", "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"))
        self.assert_untouched(destination_answers=False)
        self.b.start()
        self.assert_destination_empty()

    # --- space ---

    def tmpfs(self, size):
        return small_folder(self, self.b.path("small"), size)

    def test_a_destination_with_too_little_space(self):
        self.sr_b = self.b.sr_create("small", self.tmpfs("16m"))
        with self.assertRaises(Failure) as raised:
            self.move().send()
        self.assertEqual(raised.exception.code, "SR_BACKEND_FAILURE_44")
        self.assert_untouched()

    def test_a_destination_that_fills_up_during_the_copy(self):
        folder = self.tmpfs("48m")
        self.sr_b = self.b.sr_create("small", folder)
        task = self.begin_and_wait_for_the_middle()
        filler = os.path.join(folder, ".filler")
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(MIB)):
                    pass
            except OSError:
                pass
        failure = self.assert_task_fails(task, "SR_BACKEND_FAILURE_44", "VDI_COPY_FAILED")
        self.assertIn("space", repr(failure.details).lower())
        os.unlink(filler)
        self.assert_untouched()

    def test_a_destination_that_is_about_to_fill_up(self):
        """The move ends before a write of it fails there."""
        folder = self.tmpfs("48m")
        self.sr_b = self.b.sr_create("small", folder)
        task = self.begin_and_wait_for_the_middle()
        move, = self.a.session.migration.get_all()
        self.a.session.migration.set_bandwidth(move, str(MIB))
        space = os.statvfs(folder)
        filler = os.path.join(folder, ".filler")
        with open(filler, "wb") as file:
            file.write(bytes(max(0, space.f_bavail * space.f_frsize - 14 * MIB)))
        failure = self.assert_task_fails(task, "SR_BACKEND_FAILURE_44")
        self.assertIn("running full", failure.details[2])
        with open(self.a.path("log"), encoding="utf-8", errors="replace") as log:
            self.assertNotIn("medium error", log.read().lower())
        os.unlink(filler)
        self.assert_untouched()

    def test_an_image_that_is_replaced_at_the_destination(self):
        """It holds nothing of what was sent and compared before."""
        task = self.begin_and_wait_for_the_middle()
        folder = self.location(self.b, self.sr_b)
        name, = os.listdir(folder)
        other = os.path.join(folder, ".other")
        with open(other, "wb") as file:
            file.truncate(DISK)
        give(other)
        os.rename(other, os.path.join(folder, name))
        for pid in self.b.tgtds():
            os.kill(pid, signal.SIGKILL)
        failure = self.assert_task_fails(task, "INTERNAL_ERROR")
        self.assertIn("replaced", failure.details[1])
        self.assertIn("on the source as before", failure.details[1])
        self.assert_untouched()

    # --- cancel ---

    def test_cancel_in_the_middle(self):
        task = self.begin_and_wait_for_the_middle()
        begun = time.monotonic()
        self.a.session.task.cancel(task)
        failure = self.assert_task_fails(task, "TASK_CANCELLED", timeout=20)
        self.assertEqual(failure.details, ["TASK_CANCELLED", task])
        self.assertLess(time.monotonic() - begun, 10)
        self.assertEqual(self.a.session.task.get_status(task), "cancelled")
        self.assert_untouched()

    def test_a_cancelled_move_can_be_asked_for_again(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.session.task.cancel(task)
        self.assert_task_fails(task, "TASK_CANCELLED", timeout=20)
        self.move().send()
        self.assert_moved()

    # --- the source's own faults ---

    def test_the_source_image_is_gone(self):
        path = self.a.vdi_path(self.a.disks_of(self.vm)[0])
        move = self.move()
        os.rename(path, path + ".away")
        with self.assertRaises(Failure) as raised:
            move.send()
        self.assertIn(raised.exception.code, ("VDI_MISSING", "VDI_LOCATION_MISSING"))
        os.rename(path + ".away", path)
        self.assert_untouched()

    def test_wrong_password(self):
        with self.assertRaises(Failure) as raised:
            self.a.session.raw("session.login_with_password", "root", "wrong")
        self.assertEqual(raised.exception.code, "SESSION_AUTHENTICATION_FAILED")

    def test_a_move_of_the_null_vm(self):
        move = self.move()
        move.vm = NULL
        with self.assertRaises(Failure) as raised:
            move.send()
        self.assertEqual(raised.exception.details, ["HANDLE_INVALID", "VM", NULL])
        self.assert_untouched()


if __name__ == "__main__":
    unittest.main(verbosity=2)
