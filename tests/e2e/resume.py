#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A move that was interrupted goes on, and sends again only what the destination does not hold: what may be there is
compared by digest on both sides. FERRY_LONG: a disk of 8 GiB instead of 512 MiB."""

import os
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import GIB, MIB, Move, Pool, allocated, digest, processes_naming, program_of, wait_for
from livemove import LiveCase, newest_migration, qmp
from liveguest import verify_image
from slowlink import SlowLink
from slowmove import SLOW, SlowMove
from xensession import wait_by_polling

LONG = bool(os.environ.get("FERRY_LONG"))
PROGRAMS = ("ferryd", "tgtd", "qemu-nbd", "qemu-system-x86", "ferry-watchdog")


def reboot(pool):
    """What a reboot does: all processes of the host end at once, databases and disks stay."""
    for pid in processes_naming(pool.root):
        if program_of(pid) in PROGRAMS:
            os.kill(pid, signal.SIGKILL)
    pool.kill()


class Written(threading.Thread):
    """Bytes that the tgtd processes of a pool have written, as the kernel counts them."""

    def __init__(self, pool):
        super().__init__(daemon=True)
        self.pool, self.seen, self.ended = pool, {}, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.05):
            for pid in self.pool.tgtds():
                try:
                    with open(f"/proc/{pid}/io", encoding="ascii") as file:
                        self.seen[pid] = int(file.read().split("wchar: ")[1].split()[0])
                except (OSError, IndexError):
                    pass

    def stop(self):
        self.ended.set()
        self.join()
        return sum(self.seen.values())


class Half(unittest.TestCase):
    """The sender dies at half of a disk that is full of data."""

    size = 8 * GIB if LONG else 512 * MIB
    rate = "256MiB" if LONG else "96MiB"
    parent = os.environ.get("FERRY_SPACE", "/var/tmp" if LONG else "/tmp")

    def setUp(self):
        settings = {"migration_lease": "3s", "migration_heartbeat": "500ms", "migration_bandwidth": self.rate}
        self.a = self.enterContext(Pool("A", parent=self.parent, **settings))
        self.b = self.enterContext(Pool("B", parent=self.parent, **settings))
        self.sr_a, self.sr_b = self.a.sr_create(), self.b.sr_create()
        self.vdi = self.a.vdi_create(self.sr_a, self.size)
        for at in range(0, self.size, 64 * MIB):
            self.a.vdi_write(self.vdi, os.urandom(64 * MIB), at)
        self.vm = self.a.vm_create("guest", [self.vdi])

    def test_hardly_a_byte_is_sent_twice(self):
        content = digest(self.a.vdi_path(self.vdi))
        written = Written(self.b)
        task = Move(self.a, self.b, self.vm, self.sr_b).begin()
        folder = SlowMove.location(self.b, self.sr_b)
        wait_for("half of it is there", lambda: sum(
            allocated(os.path.join(folder, name)) for name in os.listdir(folder)) >= self.size // 2, 300)
        self.a.kill()
        self.a.start()
        wait_by_polling(self.a.session, task, 600)
        record = newest_migration(self.a)
        total = written.stop()
        sys.stderr.write(f"disk {self.size / MIB:.0f} MiB, written by tgtd {total / MIB:.1f} MiB = "
                         f"{total / self.size:.4f}; record: sent {int(record['bytes_sent']) / MIB:.1f}, "
                         f"compared {int(record['bytes_compared']) / MIB:.1f}, "
                         f"saved {int(record['bytes_saved']) / MIB:.1f} MiB\n")
        # Two sessions have a chunk each in the middle, of 4 MiB; their loss does not grow with the disk.
        self.assertLessEqual(total, self.size * 1.02 + (0 if LONG else 8 * MIB))
        self.assertGreater(total, self.size * 0.9)
        self.assertGreater(int(record["bytes_saved"]), 0)
        self.assertGreaterEqual(int(record["bytes_compared"]), int(record["bytes_saved"]))
        arrived, = self.b.session.VDI.get_all()
        self.assertEqual(digest(self.b.vdi_path(arrived)), content)
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()


class Cold(SlowMove):
    def test_a_disk_that_was_changed_while_no_agent_looked(self):
        """Also where it was copied already. Only what differs is sent."""
        task = self.begin_and_wait_for_the_middle()
        vdi, = self.a.disks_of(self.vm)
        path = self.a.vdi_path(vdi)
        self.a.kill()
        with open(path, "r+b") as file:
            file.write(os.urandom(4096))
            file.seek(3 * MIB)
            file.write(bytes(MIB))
        content = digest(path)
        self.a.start()
        wait_by_polling(self.a.session, task, 60)
        record = newest_migration(self.a)
        arrived, = self.b.session.VDI.get_all()
        self.assertEqual(digest(self.b.vdi_path(arrived)), content)
        self.assertGreater(int(record["bytes_saved"]), MIB)
        self.assertLessEqual(int(record["bytes_sent"]), 32 * MIB + 64 * 1024)
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_both_hosts_are_rebooted(self):
        task = self.begin_and_wait_for_the_middle()
        reboot(self.b)
        reboot(self.a)
        self.b.start()
        self.a.start()
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()
        self.assertGreater(int(newest_migration(self.a)["bytes_saved"]), 0)


class Cut(unittest.TestCase):
    def test_a_cut_that_is_longer_than_the_lease(self):
        """The receiver has withdrawn its exports meanwhile; nobody has to do anything."""
        link = self.enterContext(SlowLink(16 * MIB))
        settings = SLOW | {"migration_lease": "2s", "migration_abandon": "60s", "migration_peer_timeout": "60s",
                           "migration_bandwidth": "0"}
        a = self.enterContext(Pool("A", address=link.near, **settings))
        b = self.enterContext(Pool("B", address=link.far, enter=link.enter, **settings))
        sr_b = b.sr_create()
        vdi = a.vdi_create(a.sr_create(), 64 * MIB)
        a.vdi_write(vdi, os.urandom(64 * MIB))
        content = digest(a.vdi_path(vdi))
        task = Move(a, b, a.vm_create("guest", [vdi]), sr_b).begin()
        folder = SlowMove.location(b, sr_b)
        wait_for("the copy is under way", lambda: sum(
            allocated(os.path.join(folder, name)) for name in os.listdir(folder)) >= 16 * MIB, 30)
        link.cut()
        wait_for("the exports are withdrawn", lambda: not b.tgtds(), 20)
        time.sleep(2)
        link.mend()
        wait_by_polling(a.session, task, 90)
        arrived, = b.session.VDI.get_all()
        self.assertEqual(digest(b.vdi_path(arrived)), content)
        self.assertLessEqual(int(newest_migration(a)["bytes_sent"]), 64 * MIB * 1.25)
        a.wait_for_no_leftovers()
        b.wait_for_no_leftovers()


class Live(LiveCase):
    disks = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:30")]

    def begin_until(self, state):
        begun = time.monotonic()
        task, watch = self.begin(bandwidth=str(16 * MIB))
        self.assertEqual(watch.wait_for_state(state), state, watch.states())
        return task, begun

    def test_the_record_of_the_guests_writes_is_lost(self):
        """Somebody removed the bitmaps while the agent was down. The guest runs on, and all is compared."""
        for state in ("COPYING", "CONVERGING") if LONG else ("COPYING",):
            with self.subTest(state=state):
                if not self.guest_is_well():
                    self.setUp()
                task, begun = self.begin_until(state)
                self.a.kill()
                for node in qmp(self.a, self.guest.uuid, "query-named-block-nodes", flat=True):
                    for bitmap in node.get("dirty-bitmaps", []):
                        if not bitmap["busy"]:
                            qmp(self.a, self.guest.uuid, "block-dirty-bitmap-remove", node=node["node-name"],
                                name=bitmap["name"])
                self.guest.next_status()
                self.a.start()
                record = self.finish(True, task, begun)
                self.assertGreater(int(record["bytes_compared"]), 0, record)
                self.assert_content()
                self.go(there=False)

    def test_the_sources_host_is_rebooted(self):
        """The guest is gone with its memory, its disks are not: the move goes on as that of a halted VM."""
        for state in ("COPYING", "CONVERGING") if LONG else ("CONVERGING",):
            with self.subTest(state=state):
                if not self.guest_is_well():
                    self.setUp()
                guest = self.guest
                task, _ = self.begin_until(state)
                told, paths = guest.status(), guest.disk_paths()
                reboot(self.a)
                content = [digest(path) for path in paths]
                self.a.start()
                wait_by_polling(self.a.session, task, 90)
                self.assertIs(self.where_it_ended(), self.b)
                vm = self.b.vm_by_uuid(guest.uuid)
                self.assertEqual(self.b.session.VM.get_power_state(vm), "Halted")
                self.assertFalse(newest_migration(self.a)["live"])
                paths = [self.b.vdi_path(vdi) for vdi in self.b.disks_of(vm)]
                self.assertEqual([digest(path) for path in paths], content)
                self.a.wait_for_no_leftovers(30)
                self.b.wait_for_no_leftovers(30)
                for path, last in zip(paths, (told["disks"][0]["sequence"], 1)):
                    verify_image("loose", path, last)
                self.b.session.VM.start(vm, False, False)
                self.b.session.VM.hard_shutdown(vm)
                self.forget_guest()


if __name__ == "__main__":
    unittest.main(verbosity=2)
