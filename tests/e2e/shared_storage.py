#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A repository that several hosts of a pool reach: here it is one directory of this machine, as NFS would be of all."""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, PASSWORD, Pool, give, wait_for  # noqa: E402
from xensession import Failure  # noqa: E402

MEMORY = 64 * MIB


class SharedCase(unittest.TestCase):

    def folder(self):
        folder = tempfile.mkdtemp(prefix="f.shared.", dir="/tmp")
        self.addCleanup(shutil.rmtree, folder)
        give(folder)
        return folder

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        return raised.exception.details

    def live(self, pool, host):
        return pool.session.host_metrics.get_live(pool.session.host.get_metrics(host))


class Hosts(SharedCase):
    """A is the coordinator, B its member, and both have the SR plugged in."""

    def setUp(self):
        self.a = self.enterContext(Pool("A"))
        self.b = self.enterContext(Pool("B", points=True)).join(self.a)
        wait_for("B is live", lambda: self.live(self.a, self.b.host), 20)
        self.dir = self.folder()
        self.sr = self.a.sr_create("shared", self.dir, shared=True)
        self.session = self.a.session

    def vm_on(self, *vdis):
        vm = self.a.vm_create("guest", vdis)
        self.session.VM.set_memory_limits(vm, *[str(MEMORY)] * 4)
        return vm

    def assert_nothing_left(self):
        for host in (self.a, self.b):
            host.wait_for_no_leftovers(20)

    def test_a_second_host_must_mean_the_same_directory(self):
        session, sr, uuid = self.session, self.sr, self.session.SR.get_uuid(self.sr)
        self.assertTrue(session.SR.get_shared(sr))
        empty = self.folder()

        def record(location):
            return {"host": self.b.host, "SR": sr, "device_config": {"location": location}, "other_config": {}}

        self.refused("INVALID_VALUE", session.PBD.create, record("tmp"))
        pbd = session.PBD.create(record(empty))
        self.assertEqual(self.refused("PBD_EXISTS", session.PBD.create, record(self.dir))[1:], [sr, self.b.host, pbd])
        text = self.refused("SR_BACKEND_FAILURE_47", session.PBD.plug, pbd)[2]
        self.assertIn(uuid, text)
        self.assertIn(empty, text)
        self.assertFalse(session.PBD.get_currently_attached(pbd))
        other = self.folder()
        self.b.sr_create("B's own", other)
        session.PBD.destroy(pbd)
        pbd = session.PBD.create(record(other))
        self.refused("SR_BACKEND_FAILURE_42", session.PBD.plug, pbd)
        session.PBD.destroy(pbd)
        self.b.sr_attach(sr, self.dir)
        self.assertEqual({session.PBD.get_host(pbd) for pbd in session.SR.get_PBDs(sr)}, {self.a.host, self.b.host})
        # What is not shared belongs to one host, and a directory to one SR.
        own = self.a.sr_create("A's own")
        self.refused("SR_NOT_SHARABLE", session.PBD.create, dict(record(other), SR=own))
        self.refused("SR_BACKEND_FAILURE_42", session.SR.create, self.b.host, {"location": self.dir}, "0", "again", "",
                     "file", "user", False, {})
        self.refused("SR_HAS_MULTIPLE_PBDS", session.SR.set_shared, sr, False)

    def test_disks_are_made_and_removed_from_any_host(self):
        session, sr = self.session, self.sr
        pbd_a, = session.SR.get_PBDs(sr)
        pbd_b = self.b.sr_attach(sr, self.dir)
        first = self.a.vdi_create(sr, 4 * MIB)
        self.a.vdi_write(first, b"x" * MIB)
        session.PBD.unplug(pbd_a)
        # From here on it is B that works.
        second = self.a.vdi_create(sr, 4 * MIB)
        with open(os.path.join(self.dir, "found.raw"), "wb") as file:
            file.truncate(MIB)
        give(os.path.join(self.dir, "found.raw"))
        session.SR.scan(sr)
        self.assertEqual(len(session.SR.get_VDIs(sr)), 3)
        session.VDI.destroy(first)
        session.SR.update(sr)
        self.assertEqual(int(session.SR.get_virtual_allocation(sr)), 5 * MIB)
        stat = os.statvfs(self.dir)
        self.assertEqual(int(session.SR.get_physical_size(sr)), stat.f_blocks * stat.f_frsize)
        session.PBD.plug(pbd_a)
        self.assertEqual(self.refused("SR_HAS_PBD", session.SR.forget, sr), ["SR_HAS_PBD", sr])
        session.PBD.unplug(pbd_b)
        session.VDI.destroy(second)
        self.assert_nothing_left()
        self.assertEqual(sorted(os.listdir(self.dir)), [".ferry-sr", "found.raw"])
        session.SR.forget(sr)
        self.assertEqual(os.listdir(self.dir), ["found.raw"])

    def test_a_vm_starts_wherever_its_disks_are_reached(self):
        session, sr = self.session, self.sr
        vm = self.vm_on(self.a.vdi_create(sr, 4 * MIB))
        self.assertEqual(session.VM.get_possible_hosts(vm), [self.a.host])
        self.refused("SR_NOT_ATTACHED", session.VM.start_on, vm, self.b.host, False, False)
        pbd_b = self.b.sr_attach(sr, self.dir)
        self.assertEqual(set(session.VM.get_possible_hosts(vm)), {self.a.host, self.b.host})
        for host, other in ((self.b, self.a), (self.a, self.b)):
            session.VM.start_on(vm, host.host, False, False)
            self.assertEqual((len(host.guests()), len(other.guests())), (1, 0))
            pbds = {session.PBD.get_host(pbd): pbd for pbd in session.SR.get_PBDs(sr)}
            self.refused("VDI_IN_USE", session.PBD.unplug, pbds[host.host])
            session.PBD.unplug(pbds[other.host])
            session.PBD.plug(pbds[other.host])
            self.refused("VDI_IN_USE", session.VDI.destroy, self.a.disks_of(vm)[0])
            session.VM.hard_shutdown(vm)
        local = self.vm_on(self.a.vdi_create(sr, 4 * MIB), self.b.vdi_create(self.b.sr_create(), 4 * MIB))
        self.assertEqual(session.VM.get_possible_hosts(local), [self.b.host])
        session.VM.start(local, False, False)
        self.assertEqual(session.VM.get_resident_on(local), self.b.host)
        session.VM.hard_shutdown(local)
        session.PBD.unplug(pbd_b)
        self.assertEqual(session.VM.get_possible_hosts(vm), [self.a.host])
        self.assert_nothing_left()

    def test_a_crash_of_one_host_takes_nothing_of_the_other(self):
        """B dies while it makes a disk; A sees neither an orphan nor a new image, and B removes only its own."""
        session, sr = self.session, self.sr
        pbd_a, = session.SR.get_PBDs(sr)
        self.b.sr_attach(sr, self.dir)
        kept = self.a.vdi_create(sr, 4 * MIB)
        session.PBD.unplug(pbd_a)
        self.b.points.arm("disk.create", "kill")
        creating = session.other()
        maker = threading.Thread(target=self.fails, args=(creating.VDI.create, {
            "SR": sr, "virtual_size": str(MIB), "name_label": "half", "name_description": "", "type": "user",
            "sharable": False, "read_only": False, "other_config": {}}))
        maker.start()
        self.b.killed()
        half, = [name for name in os.listdir(self.dir)
                 if not name.startswith(".") and name != session.VDI.get_location(kept)]
        session.PBD.plug(pbd_a)
        session.SR.scan(sr)
        self.assertEqual(session.SR.get_VDIs(sr), [kept])
        self.assertNotIn(f"skipped:{half}", session.SR.get_sm_config(sr))
        self.assertEqual(session.doctor.examine(self.a.host), [])
        self.b.points.clear()
        self.b.start()
        maker.join()
        creating.close()
        self.assert_nothing_left()
        self.assertFalse(os.path.exists(os.path.join(self.dir, half)))
        self.assertTrue(os.path.exists(self.a.vdi_path(kept)))

    def fails(self, function, *args):
        with contextlib.suppress(Failure):
            function(*args)

    def test_a_host_leaves_and_the_repository_stays(self):
        session, sr = self.session, self.sr
        self.b.sr_attach(sr, self.dir)
        vdi = self.a.vdi_create(sr, 4 * MIB)
        vm = self.vm_on(vdi)
        session.pool.eject(self.b.host)
        self.b.left()
        self.assertEqual(self.b.session.PBD.get_all(), [])
        self.assertEqual(self.b.session.SR.get_all(), [])
        self.assertEqual(session.SR.get_VDIs(sr), [vdi])
        self.assertEqual([session.PBD.get_host(pbd) for pbd in session.SR.get_PBDs(sr)], [self.a.host])
        session.VM.start(vm, False, False)
        session.VM.hard_shutdown(vm)
        # It comes back: with a PBD that waits for somebody to look whether the location is right there too.
        self.b.join(self.a)
        pbd, = [pbd for pbd in session.SR.get_PBDs(sr) if session.PBD.get_host(pbd) == self.b.host]
        self.assertFalse(session.PBD.get_currently_attached(pbd))
        self.assertEqual(session.PBD.get_device_config(pbd), {"location": self.dir})
        wait_for("B is live", lambda: self.live(self.a, self.b.host), 20)
        session.PBD.plug(pbd)
        self.assert_nothing_left()


class Joining(SharedCase):

    def test_a_host_with_a_shared_repository_does_not_join(self):
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B"))
        sr = b.sr_create("shared", self.folder(), shared=True)
        address = f"127.0.0.1:{a.port}"
        self.refused("JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", b.session.pool.join, address, "root", PASSWORD)
        b.session.SR.set_shared(sr, False)
        b.join(a)


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
