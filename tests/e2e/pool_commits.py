#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a pool has told a sender about a move outlives the loss of its coordinator: another host has it by then. Members
fetch no copy by themselves here but at their start: what they have was fetched for a move."""

import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import Move, NULL, Pool, wait_for  # noqa: E402
from livemove import SETTINGS  # noqa: E402
from poolcase import PoolCase, refused  # noqa: E402
from xensession import wait_by_events  # noqa: E402

LONG = os.environ.get("FERRY_LONG")
# How long a coordinator waits for another host (witness.h), with what else an answer takes.
WITNESS = 3.0
SLACK = 3.0


class Commits(PoolCase):

    def setUp(self):
        pools = [self.enterContext(Pool(name, pool_copy_interval="1s" if name == "A" else "1h", **SETTINGS))
                 for name in self.names]
        # These are in each copy: each host brings them along.
        self.sr = {pool: pool.sr_create(f"of {pool.name}") for pool in pools}
        self.vm = {pool: self.vm_on(pool, f"VM of {pool.name}") for pool in pools}
        for member in pools[1:]:
            member.join(pools[0])
            wait_for("there is a copy", lambda: self.copied(member, self.vm[member]), 10)
        self.a, self.b = pools[:2]
        self.c = pools[-1]
        self.wait_live(self.a, *pools[1:])

    def of_source(self, running=False):
        """A pool of one host, with a VM; and the move of it to A."""
        source = self.enterContext(Pool("S", **SETTINGS))
        vm = self.vm_on(source)
        if running:
            source.session.VM.start(vm, False, False)
        return source, Move(source, self.a, vm, self.sr[self.a])

    def record(self, pool, role):
        return next(record for record in pool.session.migration.get_all_records().values() if record["role"] == role)

    def freeze(self, member):
        """It is there, and does not answer."""
        os.kill(member.process.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, member.process.pid, signal.SIGCONT)

    def thaw(self, member):
        os.kill(member.process.pid, signal.SIGCONT)

    def forget_sessions(self, *pools):
        for pool in pools:
            pool._forget_session()


class OfTwo(Commits):
    names = ("A", "B")

    def test_what_came_and_what_left_is_known_to_the_next_coordinator(self):
        self.assertTrue(self.copied(self.b, self.vm[self.a]))
        for running in (False, True):
            source, move = self.of_source(running)
            vm = move.send()
            self.assertEqual(self.record(source, "sender")["exposed"], "")
        Move(self.a, source, self.vm[self.a], source.sr_create()).send()
        pids = self.a.guests()
        self.forget_sessions(self.a, self.b)
        self.a.kill()
        self.take_over(self.b)
        records = self.b.session.VM.get_all_records()
        self.assertCountEqual([record["power_state"] for record in records.values()
                               if record["name_label"] == "guest"], ["Halted", "Running"])
        self.assertEqual(self.state(self.b, vm), ("Running", self.a.host))
        refused(self, "HANDLE_INVALID", self.b.session.VM.get_uuid, self.vm[self.a])
        self.assertEqual(self.a.guests(), pids)
        self.assertNotIn("MIG-EXPOSED", self.a.log())
        # Its disks are where they are.
        self.a.coordinator = self.b
        self.a.start()
        self.assertEqual(self.b.session.pool.recover_slaves(), [self.a.host])
        self.wait_live(self.b, self.a)
        self.assertEqual(self.state(self.b, vm), ("Running", self.a.host))
        self.b.session.VM.hard_shutdown(vm)

    def test_without_an_answer_it_is_told_and_committed_again_if_it_is_lost(self):
        source, move = self.of_source(running=True)
        self.freeze(self.b)
        begun = time.monotonic()
        uuid = source.session.VM.get_uuid(move.vm)
        move.send()
        self.assertLess(time.monotonic() - begun, 10 + WITNESS + SLACK)
        record = self.record(self.a, "receiver")
        self.assertEqual(record["state"], "COMMITTED")
        self.assertIn("no other host", record["exposed"])
        self.assertIn("MIG-EXPOSED", self.a.log())
        self.assertEqual(source.guests(), [])
        pids = self.a.guests()
        self.assertEqual(len(pids), 1)
        # All that knows of it is lost but the host that it is at.
        self.forget_sessions(self.a, self.b)
        self.a.kill()
        self.thaw(self.b)
        self.take_over(self.b)
        self.assertIsNone(self.b.vm_by_uuid(uuid))
        self.a.coordinator = self.b
        self.a.start()
        self.assertEqual(self.b.session.pool.recover_slaves(), [self.a.host])
        self.followed(self.b, self.a)
        self.wait_live(self.b, self.a)
        self.assertEqual(self.a.guests(), pids)
        wait_for("it is said", lambda: "MIG-COMMITTED-AGAIN" in self.a.log(), 20)
        self.assertNotIn("guest.unknown", self.a.log())
        vm = self.b.vm_by_uuid(uuid)
        self.assertEqual(self.state(self.b, vm), ("Running", self.a.host))
        self.assertEqual(len(self.b.disks_of(vm)), 1)
        wait_for("nothing is left of the move", lambda: self.a.stored_states("receiver") == set(), 20)
        self.b.session.VM.hard_shutdown(vm)
        self.a.wait_for_no_leftovers()

    if LONG:

        def test_a_host_that_is_back_ends_the_exposure(self):
            _, move = self.of_source()
            self.freeze(self.b)
            vm = move.send()
            self.assertNotEqual(self.record(self.a, "receiver")["exposed"], "")
            self.thaw(self.b)
            record = wait_for("the move has ended here too", lambda: (
                lambda record: record["state"] == "DONE" and record)(self.record(self.a, "receiver")), 30)
            self.assertEqual(record["exposed"], "")
            self.assertIn("MIG-NOT-EXPOSED", self.a.log())
            self.assertTrue(self.copied(self.b, vm))


class OfThree(Commits):
    names = ("A", "B", "C")

    def test_a_move_within_the_pool_stands_where_it_went(self):
        vm, there = self.vm[self.b], self.sr[self.c]
        self.a.session.VM.start_on(vm, self.b.host, False, False)
        task = self.a.session.Async.VM.pool_migrate(vm, self.c.host, {"sr": there})
        wait_by_events(self.a.session, task, 60.0)
        self.forget_sessions(self.a, self.b, self.c)
        self.a.kill()
        for member in (self.b, self.c):
            self.assertEqual(self.ask_copy(
                member, "SELECT SR FROM VDI WHERE ref = (SELECT VDI FROM VBD WHERE VM = ?)", vm), there)
        pids = self.c.guests()
        self.assertEqual((len(self.b.guests()), len(pids)), (0, 1))
        self.take_over(self.b)
        self.assertEqual(self.b.session.pool.recover_slaves(), [self.c.host])
        self.followed(self.b, self.c)
        self.wait_live(self.b, self.c)
        self.assertEqual(self.state(self.b, vm), ("Running", self.c.host))
        self.assertEqual(self.c.guests(), pids)
        self.assertEqual(self.b.session.VM.get_current_operations(vm), {})
        self.b.session.VM.hard_shutdown(vm)
        self.assertEqual(self.state(self.b, vm), ("Halted", NULL))


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
