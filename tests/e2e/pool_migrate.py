#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A VM moves from one host of a pool to another: it keeps its refs and uuids, and its home and files are new. The coordinator
is a third host, so that both ends have the pool's database over the network."""

import contextlib
import os
import sqlite3
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, NULL, PASSWORD, Move, Pool, digest, has_failed, wait_for  # noqa: E402
from livemove import ENDED, FORGOTTEN, SETTINGS, SenderLog, destroy, left_in_qemu  # noqa: E402
from liveguest import LiveGuest  # noqa: E402
from vmstate import different, family_state, vm_state  # noqa: E402
from xensession import Failure, Session, wait_by_events  # noqa: E402

LONG = bool(os.environ.get("FERRY_LONG"))
DISKS = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:30")]


def of(*states):
    """Those in which a move is met; without FERRY_LONG the last alone, where most is at stake."""
    return states if LONG else states[-1:]


class PoolCase(unittest.TestCase):
    """Hosts A and B of the pool of C."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.c = cls.enterClassContext(Pool("C", **SETTINGS))
        cls.a = cls.enterClassContext(Pool("A", **SETTINGS)).join(cls.c)
        cls.b = cls.enterClassContext(Pool("B", **SETTINGS)).join(cls.c)
        cls.hosts = (cls.a, cls.b, cls.c)
        cls.sr = {host: host.sr_create(f"of {host.name}") for host in cls.hosts}
        for host in cls.hosts:
            wait_for(f"{host.name} is live", lambda host=host: cls.is_live(host), 20)

    @classmethod
    def is_live(cls, host):
        session = cls.c.session
        return session.host_metrics.get_live(session.host.get_metrics(host.host))

    def setUp(self):
        self.addCleanup(self.show_logs_of_a_failure)

    def show_logs_of_a_failure(self):
        if has_failed(self):
            for host in self.hosts:
                host.show_log(120)

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        return raised.exception.details

    def settled(self):
        session = self.c.session
        return not [task for task in session.task.get_all_records().values() if task["status"] == "pending"] and \
            not [m for m in session.migration.get_all_records().values() if m["state"] not in ENDED]

    def wait_until_settled(self, timeout=90):
        wait_for("the migration settles", self.settled, timeout, 0.1)

    def assert_nothing_left(self, running=None):
        """running: (host, uuid) of the guest that runs."""
        for host in self.hosts:
            host.wait_for_no_leftovers(30, [running[1]] if running and running[0] is host else [])

    def copies_of(self, vdi):
        """Hosts whose folders have a file of that disk."""
        uuid = self.c.session.VDI.get_uuid(vdi)
        return [host.name for host in self.hosts for folder, _, files in os.walk(host.path("sr"))
                for file in files if file.startswith(uuid)]


class Halted(PoolCase):

    def new_vm(self, images=("raw",)):
        vdis = [self.a.vdi_create(self.sr[self.a], 8 * MIB, image=image) for image in images]
        vm = self.a.vm_create("guest", vdis, [self.a.network()])
        self.addCleanup(destroy, self.c, vm)
        for vdi, image in zip(vdis, images):
            if image == "raw":
                self.a.vdi_write(vdi, os.urandom(3 * MIB), MIB)
        return vm, vdis

    def test_a_halted_vm_keeps_all_but_its_place(self):
        vm, vdis = self.new_vm()
        before = vm_state(self.a, vm)
        refs = self.c.session.VM.get_VBDs(vm), self.c.session.VM.get_VIFs(vm), vdis
        for source, there in ((self.a, self.b), (self.b, self.c), (self.c, self.a)):
            self.assertEqual(Move(source, there, vm, self.sr[there]).send(), vm)
            self.assertEqual(different(before, vm_state(there, vm)), [])
            self.assertEqual((self.c.session.VM.get_VBDs(vm), self.c.session.VM.get_VIFs(vm),
                              there.disks_of(vm)), refs)
            self.assertEqual(self.copies_of(vdis[0]), [there.name])
            self.assertEqual(self.c.session.VDI.get_SR(vdis[0]), self.sr[there])
            self.assertEqual(self.c.session.VM.get_possible_hosts(vm), [there.host])
            self.assert_nothing_left()
        allocation = [int(self.c.session.SR.get_virtual_allocation(self.sr[host])) for host in self.hosts]
        self.assertEqual(allocation, [8 * MIB, 0, 0])

    def test_its_snapshots_come_along(self):
        vm, vdis = self.new_vm(["raw", "raw"])
        session = self.c.session
        first = session.VM.snapshot(vm, "first")
        self.a.vdi_write(vdis[0], os.urandom(2 * MIB), 4 * MIB)
        second = session.VM.snapshot(vm, "second")
        for snapshot in (first, second):
            self.addCleanup(destroy, self.c, snapshot)
        before, refs = family_state(self.a, vm), session.VM.get_snapshots(vm)
        for source, there in ((self.a, self.b), (self.b, self.a)):
            self.assertEqual(Move(source, there, vm, self.sr[there]).send(), vm)
            self.assertEqual(family_state(there, vm), before)
            self.assertEqual(session.VM.get_snapshots(vm), refs)
            for snapshot in refs:
                self.assertEqual(session.VM.get_current_operations(snapshot), {})
                for vdi in self.c.disks_of(snapshot):
                    self.assertEqual(self.copies_of(vdi), [there.name])
            self.assert_nothing_left()
        session.VM.revert(first)
        self.assertEqual([digest(self.a.vdi_path(vdi)) for vdi in self.c.disks_of(vm)],
                         [digest(self.a.vdi_path(vdi)) for vdi in self.c.disks_of(first)])

    def test_a_qcow2_disk_is_raw_where_it_arrives(self):
        vm, (vdi,) = self.new_vm(["qcow2"])
        Move(self.a, self.b, vm, self.sr[self.b]).send()
        record = self.c.session.VDI.get_record(vdi)
        self.assertTrue(record["location"].endswith(".raw"), record["location"])
        self.assertNotIn("image-format", record["sm_config"])
        self.assert_nothing_left()

    def test_a_cd_that_is_not_reached_stays_behind(self):
        vm, _ = self.new_vm()
        cd = self.a.vdi_create(self.sr[self.a], MIB, "cd")
        vbd = self.c.session.VBD.create({
            "VM": vm, "VDI": cd, "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD", "unpluggable": True,
            "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
        Move(self.a, self.b, vm, self.sr[self.b]).send()
        record = self.c.session.VBD.get_record(vbd)
        self.assertEqual((record["VDI"], record["empty"]), (NULL, True))
        self.c.session.VDI.destroy(cd)

    def test_what_cannot_be_is_refused(self):
        vm, (vdi,) = self.new_vm()
        session = self.c.session
        move = Move(self.a, self.b, vm, self.sr[self.b])
        self.refused("VM_BAD_POWER_STATE", session.VM.pool_migrate, vm, self.b.host, {})
        move.options = {"copy": "true"}
        self.refused("OPERATION_NOT_ALLOWED", move.check)
        move.options = {}
        move.vdi_map = {}
        self.assertEqual(self.refused("VDI_NOT_IN_MAP", move.send), ["VDI_NOT_IN_MAP", vdi])
        move.vdi_map = {vdi: self.sr[self.a]}
        self.refused("SR_NOT_ATTACHED", move.send)
        move.vdi_map = {vdi: self.sr[self.b]}
        move.vif_map = {vif: self.a.network_create() for vif in self.a.vifs_of(vm)}
        self.refused("OPERATION_NOT_ALLOWED", move.send)
        self.refused("OPERATION_NOT_ALLOWED", Move(self.a, self.a, vm, self.sr[self.a]).send)
        move.vif_map = {}
        session.host.disable(self.b.host)
        self.refused("HOST_DISABLED", move.send)
        session.host.enable(self.b.host)
        self.assertEqual(session.VM.get_current_operations(vm), {})
        self.assertEqual(self.copies_of(vdi), ["A"])
        self.assert_nothing_left()


class Live(PoolCase):
    """A guest that writes goes to and fro."""

    disks = DISKS
    guest = None

    @classmethod
    def setUpClass(cls):
        linuxguest.kernel()
        super().setUpClass()
        cls.net = cls.c.network_create()
        cls.addClassCleanup(cls.forget_guest)

    @classmethod
    def forget_guest(cls):
        if cls.guest:
            cls.guest.close()
            destroy(cls.c, cls.guest.vm)
        cls.guest = None

    def setUp(self):
        super().setUp()
        if not self.guest or self.guest.console.complaints() or self.guest.state() != "Running":
            self.forget_guest()
            type(self).guest = LiveGuest(self.a, "guest", self.disks, pools=self.hosts, sr=self.srs(),
                                         networks=[self.net])
            self.guest.call("set_affinity", self.a.host)
            self.guest.start()
        self.refs = self.all_refs()

    def srs(self):
        """Where its disks are made: of all, or a list of each one's."""
        return self.sr[self.a]

    def all_refs(self):
        session = self.c.session
        return (self.guest.vm, session.VM.get_VBDs(self.guest.vm), session.VM.get_VIFs(self.guest.vm),
                self.c.disks_of(self.guest.vm))

    def here(self):
        """The host that has the guest, by the database and by what runs."""
        resident = self.c.session.VM.get_resident_on(self.guest.vm)
        return next(host for host in self.hosts if host.host == resident)

    def assert_well(self, host, begun, away=0.0):
        """The guest runs there and has noticed nothing; nothing is left of the move, nor of its files elsewhere.
        away: seconds for which the database that decides was not there."""
        guest, session = self.guest, self.c.session
        self.assertEqual(session.VM.get_power_state(guest.vm), "Running")
        self.assertIs(self.here(), host)
        guest.pool = host
        guest.console.wait_for_tick(host)
        self.assertEqual([len(pool.guests()) for pool in self.hosts], [int(pool is host) for pool in self.hosts])
        self.assert_nothing_left((host, guest.uuid))
        self.assertEqual(session.VM.get_current_operations(guest.vm), {})
        self.assertIn("pool_migrate", session.VM.get_allowed_operations(guest.vm))
        self.assertEqual(self.all_refs(), self.refs)
        for vdi in self.c.disks_of(guest.vm):
            self.assertEqual(session.VDI.get_current_operations(vdi), {})
            self.assertEqual(self.copies_of(vdi), [self.home_of(vdi, host)])
        self.assertEqual(left_in_qemu(host, guest.uuid), [])
        consoles = session.VM.get_consoles(guest.vm)
        self.assertIn(host.root, session.console.get_location(consoles[0]))
        if begun is not None:
            self.assertLess(guest.console.pause(begun), FORGOTTEN + away)
        guest.verify_inside()

    def home_of(self, vdi, host):
        """Of a disk that is copied: the folder of the host that has the guest."""
        del vdi
        return host.name

    def assert_content(self):
        self.guest.verify_outside()
        self.guest.command("go")

    def begin(self, there, **options):
        return self.c.session.Async.VM.pool_migrate(self.guest.vm, there.host, options)

    def go(self, there, **options):
        begun = time.monotonic()
        task = self.begin(there, **options)
        wait_by_events(self.c.session, task, 120.0)
        self.assertEqual(self.c.session.task.get_result(task), "<value></value>")
        self.assert_well(there, begun)

    def assert_somewhere(self, begun, away=0.0):
        """It runs at exactly one of the two, and is brought home from the other."""
        self.wait_until_settled()
        self.assert_well(self.here(), begun, away)
        self.assert_content()
        where = self.here()
        if where is not self.a:
            self.go(self.a)
        return where


class Moves(Live):

    def test_to_and_fro(self):
        before = set(self.c.session.migration.get_all())
        self.go(self.b)
        self.assert_one_record(before)
        self.assert_content()
        self.assertEqual({self.c.session.VDI.get_SR(vdi) for vdi in self.c.disks_of(self.guest.vm)},
                         {self.sr[self.b]})
        # By the coordinator's default SR, and by name.
        self.go(self.c, sr=self.sr[self.c])
        self.assert_content()
        begun = time.monotonic()
        move = Move(self.c, self.a, self.guest.vm, self.sr[self.a])
        move.check()
        self.assertEqual(move.send(), self.guest.vm)
        self.assert_well(self.a, begun)
        self.assert_content()

    def test_its_snapshots_come_along(self):
        snapshot = self.c.session.VM.snapshot(self.guest.vm, "kept")
        self.addCleanup(destroy, self.c, snapshot)
        kept = self.c.disks_of(snapshot)
        content = [digest(self.a.vdi_path(vdi)) for vdi in kept]
        for there in (self.b, self.a):
            self.go(there)
            self.assert_content()
            self.assertEqual([self.copies_of(vdi) for vdi in kept], [[there.name]] * len(kept))
            self.assertEqual([digest(there.vdi_path(vdi)) for vdi in kept], content)
            self.assertEqual(self.c.session.VM.get_current_operations(snapshot), {})
            self.assertEqual(self.c.session.VM.get_snapshots(self.guest.vm), [snapshot])

    def assert_one_record(self, before):
        """Both sides have one object, the sender's."""
        migration = self.c.session.migration
        fresh = [migration.get_record(ref) for ref in migration.get_all() if ref not in before]
        self.assertEqual([(record["role"], record["state"], record["VM"], record["host"]) for record in fresh],
                         [("sender", "DONE", self.guest.vm, self.a.host)])
        self.assertGreater(float(fresh[0]["pause"]["total"]), 0)

    def tokens(self):
        """How many sessions for migrations there are."""
        with contextlib.closing(sqlite3.connect(f"file:{self.c.path('state', 'pool.db')}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM session WHERE originator = 'host.migrate_receive'").fetchone()[0]

    def test_what_cannot_be_is_refused(self):
        vm, move = self.guest.vm, self.c.session.VM.pool_migrate
        before = self.tokens()
        self.refused("OPERATION_NOT_ALLOWED", move, vm, self.a.host, {})
        self.refused("HANDLE_INVALID", move, vm, NULL, {})
        self.refused("HANDLE_INVALID", move, vm, self.b.host, {"sr": NULL})
        self.refused("SR_NOT_ATTACHED", move, vm, self.b.host, {"sr": self.sr[self.c]})
        self.refused("INVALID_VALUE", move, vm, self.b.host, {"vdi:" + NULL: self.sr[self.b]})
        self.refused("INVALID_VALUE", move, vm, self.b.host, {"max_downtime": "soon"})
        self.refused("HANDLE_INVALID", move, vm, self.b.host, {"network": NULL})
        self.refused("HOST_CANNOT_ATTACH_NETWORK", move, vm, self.b.host, {"network": self.net})
        self.c.session.host.disable(self.b.host)
        self.refused("HOST_DISABLED", move, vm, self.b.host, {})
        self.c.session.host.enable(self.b.host)
        pbd = self.c.session.SR.get_PBDs(self.sr[self.b])[0]
        self.c.session.PBD.unplug(pbd)
        details = self.refused("VM_REQUIRES_SR", move, vm, self.b.host, {})
        self.assertEqual(details[1:], [vm, self.sr[self.a]])
        self.c.session.PBD.plug(pbd)
        self.assertEqual(self.tokens(), before)
        self.assert_well(self.a, time.monotonic())


class Failures(Live):
    """Slow enough to be met in the middle."""

    def begin_until(self, *states):
        begun = time.monotonic()
        log = SenderLog(self.a)
        self.addCleanup(log.close)
        task = self.begin(self.b, bandwidth=str(16 * MIB))
        self.assertIsNotNone(log.wait_for_state(*states), "it ended before")
        return task, begun

    def assert_stayed(self, task, begun, *codes):
        with self.assertRaises(Failure) as raised:
            wait_by_events(self.c.session, task, 60.0)
        if codes:
            self.assertIn(raised.exception.code, codes, raised.exception.details)
        self.wait_until_settled()
        self.assert_well(self.a, begun)

    def test_cancel(self):
        for state in of("COPYING", "CONVERGING"):
            with self.subTest(state=state):
                task, begun = self.begin_until(state)
                self.c.session.task.cancel(task)
                self.assert_stayed(task, begun, "TASK_CANCELLED")

    def test_the_destinations_agent_is_killed(self):
        for state in of("COPYING", "SWITCHING"):
            with self.subTest(state=state):
                _, begun = self.begin_until(state)
                self.b.kill()
                self.b.start()
                self.assert_somewhere(begun)

    if LONG:
        def test_the_destinations_agent_stays_away(self):
            task, begun = self.begin_until("COPYING")
            self.b.kill()
            with self.assertRaises(Failure):
                wait_by_events(self.c.session, task, 60.0)
            self.guest.console.wait_for_tick(self.a)
            self.b.start()
            self.wait_until_settled()
            self.assert_well(self.a, begun)

    def test_the_sources_agent_is_killed(self):
        for state in of("COPYING", "SWITCHING", "FINISHING", "COMMITTING"):
            with self.subTest(state=state):
                _, begun = self.begin_until(state)
                self.a.kill()
                # In doubt the guest waits for it: the destination may not have been asked yet.
                if state != "COMMITTING":
                    self.guest.console.wait_for_any_tick()
                self.a.start()
                self.assert_somewhere(None if state == "COMMITTING" else begun)

    def test_both_agents_are_killed(self):
        for state in of("CONVERGING", "SWITCHING", "COMMITTING"):
            with self.subTest(state=state):
                _, begun = self.begin_until(state)
                self.b.kill()
                self.a.kill()
                self.a.start()
                self.b.start()
                # In doubt the guest waits for both.
                self.assert_somewhere(None if state == "COMMITTING" else begun)

    def kill_coordinator(self):
        for host in (self.a, self.b):
            host._forget_session()
        self.c.kill()

    def start_coordinator(self):
        self.c.start()
        for host in (self.a, self.b):
            host.session = Session(self.c.url, "root", PASSWORD)

    def test_the_coordinator_is_killed(self):
        """What cannot be stored is tried again; the guest is nowhere twice."""
        for state in of("COPYING", "SWITCHING", "COMMITTING"):
            with self.subTest(state=state):
                _, begun = self.begin_until(state)
                killed = time.monotonic()
                self.kill_coordinator()
                time.sleep(1)
                self.start_coordinator()
                self.assert_somewhere(begun, time.monotonic() - killed)

    def test_the_sources_guest_is_killed(self):
        """The VM is halted where it was, and can be started again."""
        task, _ = self.begin_until("CONVERGING")
        os.kill(self.a.guests()[0], 9)
        with self.assertRaises(Failure):
            wait_by_events(self.c.session, task, 60.0)
        self.wait_until_settled()
        self.assertEqual(self.guest.state(), "Halted")
        self.assert_nothing_left()
        for vdi in self.c.disks_of(self.guest.vm):
            self.assertEqual(self.copies_of(vdi), [self.home_of(vdi, self.a)])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
