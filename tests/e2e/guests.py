#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests: real QEMU processes that boot a real kernel, without hardware virtualisation."""

import os
import signal
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, NULL, Move, Pool, wait_for  # noqa: E402
from shellguest import BOOT, MEMORY, Guest as ShellGuest  # noqa: E402
from xensession import Failure, wait_by_polling  # noqa: E402


# An event.
AT_ONCE = 2.0


def refused(test, code, function, *args):
    with test.assertRaises(Failure) as raised:
        function(*args)
    test.assertEqual(raised.exception.code, code)
    return raised.exception.details


class Guest(ShellGuest):
    """With one processor, which boots sooner, unless it is told otherwise."""

    def __init__(self, pool, label, disks=1, networks=0, **fields):
        super().__init__(pool, label, disks, networks, **{"VCPUs_max": "1", "VCPUs_at_startup": "1", **fields})


class Guests(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        linuxguest.kernel()

    def setUp(self):
        self.a = self.enterContext(Pool("A"))

    def assert_halted(self, guest):
        record = guest.record()
        session = self.a.session
        self.assertEqual(record["power_state"], "Halted")
        self.assertEqual((record["domid"], record["resident_on"], record["consoles"]),
                         ("-1", NULL, []))
        self.assertIn("start", record["allowed_operations"])
        self.assertIn("migrate_send", record["allowed_operations"])
        for vbd in record["VBDs"]:
            self.assertFalse(session.VBD.get_currently_attached(vbd))
        for vif in record["VIFs"]:
            self.assertFalse(session.VIF.get_currently_attached(vif))
        self.a.wait_for_no_leftovers(5)

    def test_life(self):
        guest = Guest(self.a, "life", disks=2, networks=1, VCPUs_max="2", VCPUs_at_startup="2").start()
        session = self.a.session
        record = guest.record()
        self.assertEqual(record["power_state"], "Running")
        self.assertEqual(record["resident_on"], self.a.host)
        self.assertGreater(int(record["domid"]), 0)
        self.assertIn("migrate_send", record["allowed_operations"])
        self.assertNotIn("start", record["allowed_operations"])
        self.assertIn("clean_shutdown", record["allowed_operations"])
        metrics = session.VM_metrics.get_record(record["metrics"])
        self.assertEqual(metrics["memory_actual"], str(MEMORY))
        self.assertEqual(metrics["VCPUs_number"], record["VCPUs_max"])
        for vbd in record["VBDs"]:
            self.assertTrue(session.VBD.get_currently_attached(vbd))
        guest.wait_for_beat(2)
        self.assertIn(f"booted with {record['VCPUs_max']} processors", guest.console())
        self.assertNotIn("write failed", guest.console())

        guest.call("pause")
        self.assertEqual(guest.state(), "Paused")
        beats = guest.beats()
        time.sleep(0.7)
        self.assertEqual(guest.beats(), beats)
        details = refused(self, "VM_BAD_POWER_STATE", guest.call, "pause")
        self.assertEqual(details[2:], ["running", "paused"])
        guest.call("unpause")
        self.assertEqual(guest.state(), "Running")
        guest.wait_for_beat()

        self.refusals_while_it_runs(guest, record)

        guest.call("hard_reboot")
        wait_for("it boots again", lambda: guest.console().count("booted") == 2, BOOT)
        guest.wait_for_beat()
        guest.call("clean_shutdown")
        self.assert_halted(guest)
        with open(self.a.vdi_path(self.a.disks_of(guest.vm)[0]), "rb") as file:
            self.assertIn(b"record 1\n", file.read(4096))
        guest.start(paused=True)
        self.assertEqual(guest.state(), "Paused")
        guest.call("hard_shutdown")
        self.assert_halted(guest)

    def refusals_while_it_runs(self, guest, record):
        session = self.a.session
        vdi = self.a.disks_of(guest.vm)[0]
        for operation in ("start", "start_on"):
            args = (self.a.host, False, False) if operation == "start_on" else (False, False)
            details = refused(self, "VM_BAD_POWER_STATE", guest.call, operation, *args)
            self.assertEqual(details[2:], ["halted", "running"])
        refused(self, "VM_BAD_POWER_STATE", guest.call, "destroy")
        refused(self, "VM_BAD_POWER_STATE", session.VM.set_VCPUs_max, guest.vm, "4")
        refused(self, "VM_BAD_POWER_STATE", session.VBD.destroy, record["VBDs"][0])
        refused(self, "VM_BAD_POWER_STATE", session.VIF.destroy, record["VIFs"][0])
        refused(self, "VDI_IN_USE", session.VDI.destroy, vdi)
        refused(self, "VDI_IN_USE", session.VDI.resize, vdi, str(16 * MIB))
        second = self.a.vm_create("second", [vdi], **linuxguest.boot_fields(self.a.root))
        session.VM.set_memory_limits(second, *[str(MEMORY)] * 4)
        refused(self, "VDI_IN_USE", session.VM.start, second, False, False)
        self.assertEqual(session.VM.get_power_state(second), "Halted")
        self.assertFalse(session.VBD.get_currently_attached(session.VM.get_VBDs(second)[0]))

    def test_it_ends_by_itself(self):
        guest = Guest(self.a, "ends").start().wait_for_beat()
        guest.type("sync; poweroff -f")
        guest.wait_for_state("Halted")
        self.assert_halted(guest)

    def test_what_qemu_does_by_itself_is_seen(self):
        """As when it stops a guest whose disk is full: here by its second monitor."""
        guest = Guest(self.a, "itself").start()
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(os.path.join(guest.folder(), "qmp2"))
            monitor.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"stop"}\n')
            guest.wait_for_state("Paused")
            self.assertIn("unpause", guest.record()["allowed_operations"])
            monitor.sendall(b'{"execute":"cont"}\n')
            guest.wait_for_state("Running")
            monitor.sendall(b'{"execute":"quit"}\n')
            guest.wait_for_state("Halted")
        self.assert_halted(guest)

    def test_a_killed_qemu_is_noticed_at_once(self):
        guest = Guest(self.a, "killed").start()
        os.kill(guest.pid(), signal.SIGKILL)
        guest.wait_for_state("Halted", AT_ONCE)
        self.assert_halted(guest)

    def test_it_outlives_the_agent(self):
        guest = Guest(self.a, "outlives").start().wait_for_beat()
        pid, domid = guest.pid(), guest.record()["domid"]
        self.a.kill()
        self.a.start()
        self.assertEqual((guest.state(), guest.pid()), ("Running", pid))
        self.assertEqual(guest.record()["domid"], domid)
        guest.wait_for_beat()
        self.a.restart()
        self.assertEqual(guest.pid(), pid)
        guest.call("pause")
        self.a.kill()
        self.a.start()
        self.assertEqual(guest.state(), "Paused")
        guest.call("unpause")
        guest.wait_for_beat()
        os.kill(pid, signal.SIGKILL)
        guest.wait_for_state("Halted", AT_ONCE)
        self.assert_halted(guest)

    def test_it_shuts_down_while_no_agent_looks(self):
        guest = Guest(self.a, "alone").start().wait_for_beat()
        pid = guest.pid()
        guest.type("sleep 1; sync; poweroff -f")
        self.a.kill()
        wait_for("QEMU ends", lambda: pid not in self.a.guests(), 20)
        self.a.start()
        self.assert_halted(guest)

    def test_a_qemu_that_hangs_stays_until_it_is_killed(self):
        guest = Guest(self.a, "hangs").start()
        pid = guest.pid()
        os.kill(pid, signal.SIGSTOP)
        self.a.kill()
        self.a.start()
        self.assertEqual((guest.state(), guest.pid()), ("Running", pid))
        details = refused(self, "INTERNAL_ERROR", guest.call, "pause")
        self.assertIn("has not answered yet", details[1])
        self.assertEqual(guest.state(), "Running")
        os.kill(pid, signal.SIGCONT)
        guest.wait_for_beat()
        wait_for("it can be paused", lambda: self.can_pause(guest), 10)
        guest.call("unpause")
        os.kill(pid, signal.SIGSTOP)
        guest.call("hard_shutdown")
        self.assert_halted(guest)

    def can_pause(self, guest):
        try:
            guest.call("pause")
            return True
        except Failure as failure:
            self.assertEqual(failure.code, "INTERNAL_ERROR")
            return False

    def test_an_agent_that_dies_while_it_starts_one(self):
        guest = Guest(self.a, "torn")
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
            with self.subTest(delay=delay):
                self.a.session.call("Async.VM.start", guest.vm, False, False)
                time.sleep(delay)
                self.a.kill()
                self.a.start()
                running = guest.state() == "Running"
                self.assertEqual(len(self.a.guests()), 1 if running else 0)
                self.assertEqual(guest.record()["current_operations"], {})
                if running:
                    guest.call("hard_shutdown")
                self.assert_halted(guest)

    def test_a_guest_that_does_not_shut_down(self):
        self.a.configure(guest_shutdown_timeout="1s")
        self.a.restart()
        guest = Guest(self.a, "deaf", PV_args=linuxguest.ARGS + " deaf").start().wait_for_beat()
        refused(self, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", guest.call, "clean_shutdown")
        self.assertEqual(guest.state(), "Running")
        self.a.configure(guest_shutdown_timeout="60s")
        self.a.restart()
        session = self.a.session
        task = session.call("Async.VM.clean_shutdown", guest.vm)
        wait_for("it is asked", lambda: guest.record()["current_operations"], 5)
        refused(self, "OTHER_OPERATION_IN_PROGRESS", guest.call, "clean_reboot")
        session.task.cancel(task)
        refused(self, "TASK_CANCELLED", wait_by_polling, session, task)
        self.assertEqual((guest.state(), guest.record()["current_operations"]), ("Running", {}))
        # What is done by force need not wait for what is asked.
        task = session.call("Async.VM.clean_shutdown", guest.vm)
        wait_for("it is asked", lambda: guest.record()["current_operations"], 5)
        guest.call("hard_shutdown")
        wait_by_polling(session, task)
        self.assert_halted(guest)

    def test_a_clean_reboot_is_a_new_start(self):
        guest = Guest(self.a, "reboot").start().wait_for_beat()
        pid, domid = guest.pid(), guest.record()["domid"]
        guest.call("clean_reboot")
        self.assertEqual(guest.state(), "Running")
        self.assertNotEqual((guest.pid(), guest.record()["domid"]), (pid, domid))
        guest.call("hard_shutdown")
        self.assert_halted(guest)

    def test_what_cannot_start_leaves_nothing(self):
        guest = Guest(self.a, "wrong")
        session = self.a.session
        session.VM.set_PV_kernel(guest.vm, "/boot/no such kernel")
        details = refused(self, "INVALID_VALUE", guest.start)
        self.assertEqual(details[1], "PV_kernel")
        self.assertIn("/boot/no such kernel: No such file", details[2])
        self.assert_halted(guest)

        session.VM.set_PV_kernel(guest.vm, os.path.join(self.a.root, "initramfs"))
        details = refused(self, "INTERNAL_ERROR", guest.start)
        self.assertIn("QEMU did not start:", details[1])
        self.assert_halted(guest)

        session.VM.set_PV_kernel(guest.vm, linuxguest.kernel())
        guest.set_memory(1 << 50)
        details = refused(self, "HOST_NOT_ENOUGH_FREE_MEMORY", guest.start)
        self.assertEqual(details[1], str(1 << 50))
        self.assertLess(int(details[2]), 1 << 50)
        guest.set_memory(MIB)
        refused(self, "VM_MEMORY_SIZE_TOO_LOW", guest.start)
        guest.set_memory(MEMORY)
        self.assert_halted(guest)

        vdi = self.a.disks_of(guest.vm)[0]
        path = self.a.vdi_path(vdi)
        os.rename(path, path + ".away")
        details = refused(self, "VDI_MISSING", guest.start)
        self.assertEqual(details[1:], [guest.sr, vdi])
        os.rename(path + ".away", path)
        self.assert_halted(guest)

        self.a.configure(guest_qemu="/usr/bin/no-such-qemu")
        self.a.restart()
        details = refused(self, "INTERNAL_ERROR", guest.start)
        self.assertIn("/usr/bin/no-such-qemu", details[1])
        self.assert_halted(guest)
        self.a.configure(guest_qemu="/usr/bin/qemu-system-x86_64")
        self.a.restart()
        guest.start()
        guest.call("hard_shutdown")
        self.assert_halted(guest)

    def test_two_starts_at_once_are_one(self):
        guest = Guest(self.a, "twice")
        outcomes = []

        def start(session):
            try:
                session.VM.start(guest.vm, False, False)
                outcomes.append("started")
            except Failure as failure:
                outcomes.append(failure.code)
            session.close()
        threads = [threading.Thread(target=start, args=(self.a.session.other(),))
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(outcomes.count("started"), 1, outcomes)
        self.assertLessEqual(set(outcomes),
                             {"started", "OTHER_OPERATION_IN_PROGRESS", "VM_BAD_POWER_STATE"})
        self.assertEqual(len(self.a.guests()), 1)
        guest.call("hard_shutdown")
        self.assert_halted(guest)

    def test_it_moves_when_it_is_halted_and_starts_there(self):
        with Pool("B") as b:
            sr_b = b.sr_create()
            guest = Guest(self.a, "moves").start().wait_for_beat(3)
            guest.call("pause")
            guest.wait_for_state("Paused")
            details = refused(self, "VM_BAD_POWER_STATE", Move(self.a, b, guest.vm, sr_b).send)
            self.assertEqual(details[2:], ["halted, running", "paused"])
            guest.call("unpause")
            guest.wait_for_state("Running")
            sharing = self.a.vm_create("sharing", self.a.disks_of(guest.vm))
            refused(self, "VDI_IN_USE", Move(self.a, b, sharing, sr_b).send)
            self.a.session.VM.destroy(sharing)
            guest.call("clean_shutdown")
            self.assert_halted(guest)
            b.wait_for_no_leftovers()
            arrived = Move(self.a, b, guest.vm, sr_b).send()
            there = Guest.__new__(Guest)
            there.pool, there.vm, there.uuid = b, arrived, guest.uuid
            # The initramfs lies where the daemon there may read it.
            b.session.VM.set_PV_ramdisk(arrived, linuxguest.boot_fields(b.root)["PV_ramdisk"])
            with open(b.vdi_path(b.disks_of(arrived)[0]), "rb") as file:
                self.assertIn(b"record 1\n", file.read(4096))
            there.start().wait_for_beat()
            there.call("clean_shutdown")
            self.assertEqual(there.state(), "Halted")
            b.wait_for_no_leftovers()


if __name__ == "__main__":
    unittest.main(verbosity=2)
