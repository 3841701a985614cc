#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A pool of three hosts, each in a network namespace: its coordinator is killed, a member is cut off, the network falls
apart. Guests run on, nothing that was acknowledged in time is lost, and no two hosts ever coordinate. Needs root."""

import json
import os
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, Move, NULL, PASSWORD, Pool, digest, give, has_failed, wait_for  # noqa: E402
from liveguest import LiveGuest  # noqa: E402
from netlab import Lab  # noqa: E402
from onewriter import OneWriter  # noqa: E402
from poolcase import INTERVAL, SLACK, PoolCase, refused  # noqa: E402
from xensession import Failure, Session, wait_by_events  # noqa: E402

LONG = os.environ.get("FERRY_LONG")
# A guest that stood still for longer has noticed.
NOTICED = 1.5
SETTINGS = {
    "migration_heartbeat": "300ms",
    "migration_lease": "3s",
    "migration_abandon": "60s",
    "migration_peer_timeout": "60s",
}


class Followed(threading.Thread):
    """Whom members follow, all the time: the term never goes back, and has one coordinator."""

    def __init__(self, pools):
        super().__init__(daemon=True, name="followed")
        self.pools, self.ended, self.wrong, self.terms = pools, threading.Event(), [], {}
        self.last = {}
        self.start()

    def run(self):
        while not self.ended.wait(0.02):
            for pool in self.pools:
                self.look(pool)

    def look(self, pool):
        try:
            with open(pool.path("state", "membership"), encoding="utf-8") as file:
                said = json.load(file)
        except (OSError, ValueError):
            return
        term, coordinator = int(said["term"]), said["coordinator"]
        if not coordinator:
            return  # it has just joined
        if term < self.last.get(pool, 0):
            self.wrong.append(f"{pool.name} went back from term {self.last[pool]} to {term}")
        if self.terms.setdefault(term, coordinator) != coordinator:
            self.wrong.append(f"two hosts are followed in term {term}")
        self.last[pool] = term

    def stop(self):
        self.ended.set()
        self.join()


class ThreeHosts(PoolCase):

    def setUp(self):
        linuxguest.kernel()
        self.lab = self.enterContext(Lab("A", "B", "C", "S"))
        self.a, self.b, self.c = self.hosts = [self.host(name) for name in "ABC"]
        self.sr = {pool: pool.sr_create(f"of {pool.name}") for pool in self.hosts}
        for member in (self.b, self.c):
            member.join(self.a)
        self.wait_live(*self.hosts)
        self.followed_by = Followed(self.hosts)
        self.addCleanup(self.assert_well_coordinated)
        self.addCleanup(self.show_logs_of_a_failure)

    def host(self, name):
        return self.enterContext(Pool(name, address=self.lab.address[name], enter=self.lab.enter[name],
                                      pool_copy_interval=f"{int(INTERVAL * 1000)}ms", **SETTINGS))

    def assert_well_coordinated(self):
        self.followed_by.stop()
        self.assertEqual(self.followed_by.wrong, [])

    def show_logs_of_a_failure(self):
        if has_failed(self):
            for host in self.hosts:
                host.show_log(80)

    def guest_on(self, pool):
        """A Linux that writes, and says on its console that it does."""
        guest = LiveGuest(pool, f"guest of {pool.name}", [(8 * MIB, "random:100:4:0:6")], pools=self.hosts,
                          sr=self.sr[pool])
        self.addCleanup(guest.close)
        guest.call("start_on", pool.host, False, False)
        guest.console.wait_for_event("ready")
        return guest

    def assert_untouched(self, guest, since):
        """It runs where it did, and has stood still at no time."""
        guest.console.wait_for_tick(guest.pool)
        self.assertLess(guest.console.pause(since), NOTICED)
        self.assertEqual(guest.console.complaints(), [])

    def rules(self, pool):
        """Whether it serves clients as a coordinator."""
        try:
            Session(pool.url, "root", PASSWORD).close()
            return True
        except (OSError, Failure):
            return False

    def take_in(self, new, *others):
        """The new coordinator is followed by these; some were away for a while."""
        wanted = {pool.host for pool in others}
        wait_for("all follow", lambda: wanted <= set(new.session.pool.recover_slaves()), 30, 0.5)
        self.followed(new, *others)
        self.wait_live(new, *others)


class Lost(ThreeHosts):

    def test_a_member_is_cut_off_and_then_the_coordinator_killed(self):
        # They take a while to boot: one that runs is used for both.
        guests = [self.guest_on(pool) for pool in ((self.a, self.c) if LONG else (self.c,))]
        self.cut_off(guests[-1])
        self.lose_the_coordinator(guests)

    def cut_off(self, guest):
        """A member that reaches nobody keeps its guests and its move."""
        vdi = self.c.vdi_create(self.sr[self.c], 12 * MIB)
        vm = self.c.vm_create("moves", [vdi])
        self.c.vdi_write(vdi, os.urandom(12 * MIB))
        before = digest(self.c.vdi_path(vdi))
        begun = time.monotonic()
        move = Move(self.c, self.b, vm, self.sr[self.b], options={"bandwidth": str(4 * MIB)})
        task = self.a.session.Async.VM.migrate_send(*move.arguments())
        wait_for("it is copied", lambda: self.a.session.task.get_progress(task) > 0.1, 20)
        self.lab.cut("C")
        # Longer than the lease: the destination withdraws its exports.
        time.sleep(18 if LONG else 4)
        self.assert_untouched(guest, begun)
        if LONG:
            self.assertFalse(self.live(self.a, self.c.host))
        self.lab.mend("C")
        wait_by_events(self.a.session, task, 60.0)
        self.assertEqual(digest(self.b.vdi_path(vdi)), before)
        self.wait_live(self.a, self.c)
        self.assertEqual(self.state(self.a, guest.vm), ("Running", self.c.host))
        self.assert_untouched(guest, begun)
        self.assertNotIn("HOST_EJECTED", self.c.log())
        self.c.wait_for_no_leftovers(30, [guest.uuid])
        self.b.wait_for_no_leftovers(30)

    def lose_the_coordinator(self, guests):
        """What was acknowledged in time is there, and guests run on."""
        begun = time.monotonic()
        made = []  # (when it was acknowledged, VM)
        while time.monotonic() < begun + INTERVAL + SLACK + 1:
            made.append((time.monotonic(), self.a.vm_create(f"VM {len(made)}")))
            time.sleep(0.02)
        for pool in self.hosts:
            pool._forget_session()
        killed = time.monotonic()
        self.a.kill()
        self.take_over(self.b)
        there = set(self.b.session.VM.get_all())
        lost = [killed - when for when, vm in made if vm not in there]
        self.assertLess(len(lost), len(made) / 2)
        self.assertLess(max(lost, default=0), INTERVAL + SLACK)
        self.take_in(self.b, self.c)
        # The old one comes back, and does not rule.
        self.a.coordinator = self.b
        self.a.start()
        refused(self, "HOST_IS_SLAVE", Session, self.a.url, "root", PASSWORD)
        self.take_in(self.b, self.a, self.c)
        for guest in guests:
            self.assert_untouched(guest, begun)
            self.assertEqual(self.state(self.b, guest.vm), ("Running", guest.pool.host))
        self.assertEqual([len(pool.guests()) for pool in self.hosts], [int(bool(LONG)), 0, 1])
        guests[-1].verify_inside()


class Parted(ThreeHosts):
    """A, which coordinates, does not reach the others."""

    def shared_vm(self):
        """Halted, with its disk in a folder that all reach."""
        folder = tempfile.mkdtemp(prefix="s", dir=self.a.path("sr"))
        give(folder)
        os.chmod(self.a.path("sr"), 0o755)
        sr = self.a.sr_create("shared", folder, shared=True)
        for member in (self.b, self.c):
            member.sr_attach(sr, folder)
        vm = self.a.vm_create("on a shared disk", [self.a.vdi_create(sr, 4 * MIB)])
        self.a.session.VM.set_memory_limits(vm, *[str(64 * MIB)] * 4)
        return vm

    def move_to_the_wrong_side(self):
        """A does not know yet that it is alone, and takes a guest in; that is said to be exposed."""
        source = self.host("S")
        arriving = self.vm_on(source, "arrives")
        source.session.VM.start(arriving, False, False)
        uuid = source.session.VM.get_uuid(arriving)
        Move(source, self.a, arriving, self.sr[self.a]).send()
        self.assertIn("MIG-EXPOSED", self.a.log())
        return source, uuid

    def assert_arrived(self, source, uuid):
        """What A took in alone is the pool's too, now."""
        wait_for("it is said", lambda: "MIG-COMMITTED-AGAIN" in self.a.log(), 20)
        vm = self.b.vm_by_uuid(uuid)
        self.assertEqual(self.state(self.b, vm), ("Running", self.a.host))
        self.assertIsNone(source.vm_by_uuid(uuid))
        self.assertEqual(source.guests(), [])
        self.b.session.VM.hard_shutdown(vm)

    def test_one_side_goes_on_and_nothing_runs_twice(self):
        guest = self.guest_on(self.a) if LONG else None
        stays, vm = self.vm_on(self.a), self.shared_vm()
        self.a.session.VM.start(stays, False, False)
        pids = self.a.guests()
        for member in (self.b, self.c):
            wait_for("all of this is in the copies", lambda: self.copied(member, vm), INTERVAL + SLACK)
        writer = OneWriter(self.hosts, os.stat(self.a.vdi_path(self.a.disks_of(vm)[0])).st_ino, 0.05)
        self.addCleanup(writer.stop)
        begun = time.monotonic()
        self.lab.part(["A"], ["B", "C"])
        if LONG:
            source, coming = self.move_to_the_wrong_side()
        self.take_over(self.b)
        self.take_in(self.b, self.c)
        # A rules on over itself. What both could start, one starts.
        self.assertTrue(self.rules(self.a))
        old = Session(self.a.url, "root", PASSWORD)
        self.b.session.VM.start_on(vm, self.c.host, False, False)
        with self.assertRaises(Failure):
            old.VM.start_on(vm, self.a.host, False, False)
        self.assertEqual([len(pool.guests()) for pool in self.hosts], [3 if LONG else 1, 0, 1])
        old.close()
        self.a._forget_session()
        self.a.coordinator = self.b
        self.lab.heal()
        wait_for("A gives way", lambda: "COORDINATOR_OVERRULED" in self.a.log(), 40)
        self.take_in(self.b, self.a, self.c)
        self.assertFalse(self.rules(self.a))
        self.assertEqual(self.state(self.b, vm), ("Running", self.c.host))
        self.assertEqual(self.state(self.b, stays), ("Running", self.a.host))
        if LONG:
            self.assert_untouched(guest, begun)
            self.assert_arrived(source, coming)
        writer.stop()
        self.assertGreater(writer.seen, 0)
        self.assertEqual(writer.twice, [])
        self.b.session.VM.hard_shutdown(vm)
        self.assertEqual(self.state(self.b, vm), ("Halted", NULL))
        self.assertEqual([pool.guests() for pool in self.hosts], [pids, [], []])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
