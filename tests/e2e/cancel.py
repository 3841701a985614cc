#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A move is cancelled in each of its states, from either side, also while the other hangs or is gone: within 5 s the task
has ended and the VM is free, its guest has not noticed, and who asked, when and in which state stands in the record. After
the commit the truth is told instead.

FERRY_LONG=1: each 20 times.
"""

import contextlib
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultpools import ColdPools, LivePools  # noqa: E402
from ferrytest import wait_for  # noqa: E402
from livemove import ENDED, newest_migration  # noqa: E402
from xensession import Failure  # noqa: E402

ROUNDS = 20 if os.environ.get("FERRY_LONG") else 1
LIMIT = 5.0
SLOW = {"bandwidth": str(1 << 20)}


class Cancels:
    """Mixed into the pools of faultpools.py, with the settings that a daemon has by default."""

    settings = {}

    # --- holding a move in a state ---

    @contextlib.contextmanager
    def held(self, side, point, options=None, rule="hang", state=None):
        """A move, which waits there: its task. side: of the point, "source" or "destination"."""
        self.find_direction()
        pool = getattr(self, side)
        pool.points.arm(point, rule)
        self.begun, self.begun_at = time.monotonic(), int(time.time())
        task = self.begin_move(options or {})
        try:
            pool.points.wait_for(point, 90, 2 if "after=1" in rule else 1)
            if state:
                wait_for(f"the source is in {state}", lambda: state in self.source.stored_states("sender"), 20, 0.005)
            yield task
        finally:
            pool.points.clear()

    def until_free(self, task, asked):
        """Seconds from the request until the task has ended and the VM can be used."""
        session = self.source.session
        wait_for("the task ends", lambda: session.task.get_status(task) != "pending", 30, 0.01)
        vm = self.source.vm_by_uuid(self.uuid)
        wait_for("the VM is free", lambda: not session.VM.get_current_operations(vm), 30, 0.01)
        taken = time.monotonic() - asked
        self.longest = max(getattr(self, "longest", 0.0), taken)
        self.assertLess(taken, LIMIT)
        return taken

    def by_task(self, task):
        self.source.session.task.cancel(task)

    def by_migration(self, pool):
        for ref, record in pool.session.migration.get_all_records().items():
            if record["state"] not in ENDED:
                return pool.session.migration.cancel(ref)
        raise AssertionError(f"no migration at {pool.name}")

    def assert_recorded(self, pool, task, state):
        """At the side where it was asked for."""
        uuid = self.source.session.task.get_other_config(task)["ferry:migration"]
        record = pool.session.migration.get_record(pool.session.migration.get_by_uuid(uuid))
        self.assertEqual(record["cancelled_in"], state)
        self.assertRegex(record["cancelled_by"], r"root at 127\.0\.0\.1")
        at = time.mktime(time.strptime(str(record["cancelled_at"]), "%Y%m%dT%H:%M:%SZ")) - time.timezone
        self.assertTrue(self.begun_at <= at <= time.time(), (self.begun_at, at, time.time()))

    def cancel_in(self, state, side, point, freeze=False, **how):
        """At the source, by its task and by name in turn."""
        for number in range(ROUNDS):
            with self.held(side, point, state=state, **how) as task:
                with self.frozen(self.destination) if freeze else contextlib.nullcontext():
                    asked = time.monotonic()
                    if number % 2:
                        self.by_migration(self.source)
                    else:
                        self.by_task(task)
                    taken = self.until_free(task, asked)
                    self.assertEqual(self.source.session.task.get_status(task), "cancelled")
            self.assertEqual(self.assert_laws(self.begun), "stayed")
            self.assert_recorded(self.source, task, state)
            print(f"{state}{', the destination hangs' if freeze else ''}: {taken:.2f} s", flush=True)

    def cancel_at_destination(self, state, side, point, release=False, **how):
        for _ in range(ROUNDS):
            with self.held(side, point, **how) as task:
                asked = time.monotonic()
                self.by_migration(self.destination)
                if release:
                    self.source.points.clear()
                    self.destination.points.clear()
                taken = self.until_free(task, asked)
                error = self.source.session.task.get_error_info(task)
                self.assertIn("cancelled at the destination by root at", " ".join(error))
            self.assertEqual(self.assert_laws(self.begun), "stayed")
            self.assert_recorded(self.destination, task, state)
            print(f"{state} at the destination: {taken:.2f} s", flush=True)

    def refuse(self, cancel, text):
        with self.assertRaises(Failure) as raised:
            cancel()
        self.assertEqual(raised.exception.code, "OPERATION_NOT_ALLOWED")
        self.assertRegex(raised.exception.details[1], text)

    def refused_after_the_commit(self):
        with self.held("destination", "peer.serve.commit.before", state="COMMITTING") as task:
            self.refuse(lambda: self.by_task(task), "has asked for its commit")
            self.refuse(lambda: self.by_migration(self.source), "has asked for its commit")
        self.assertEqual(self.assert_laws(self.begun), "moved")
        with self.held("source", "sender.FINISHING", state="FINISHING") as task:
            self.refuse(lambda: self.by_task(task), "was committed and cannot be cancelled")
            self.refuse(lambda: self.by_migration(self.source), "was committed and cannot be cancelled")
            self.refuse(lambda: self.by_migration(self.destination), "was committed at 2.* and cannot be cancelled")
        self.assertEqual(self.assert_laws(self.begun), "moved")
        uuid = newest_migration(self.source)["uuid"]
        self.refuse(lambda: self.source.session.migration.cancel(uuid), "has ended")


class Cold(Cancels, ColdPools):
    def test_at_the_source(self):
        self.cancel_in("NEW", "source", "sender.NEW")
        self.cancel_in("PREPARING", "destination", "peer.serve.prepare.before", rule="hang after=1")
        self.cancel_in("COPYING", "source", "iscsi.write", rule="delay 0", options=SLOW)
        self.cancel_in("COPYING", "destination", "peer.serve.digest.before")
        self.cancel_in("SWITCHING", "destination", "peer.serve.seal.before")

    def test_while_the_destination_hangs(self):
        self.cancel_in("PREPARING", "destination", "peer.serve.prepare.before", rule="hang after=1", freeze=True)
        self.cancel_in("COPYING", "source", "iscsi.write", rule="delay 0", options=SLOW, freeze=True)
        self.cancel_in("SWITCHING", "destination", "peer.serve.seal.before", freeze=True)

    def test_while_the_destination_is_gone(self):
        for _ in range(ROUNDS):
            with self.held("source", "iscsi.write", rule="delay 0", options=SLOW, state="COPYING") as task:
                self.destination.kill()
                asked = time.monotonic()
                self.by_task(task)
                self.until_free(task, asked)
            self.destination.start()
            self.assertEqual(self.assert_laws(self.begun), "stayed")

    def test_at_the_destination(self):
        self.cancel_at_destination("ALLOCATING", "destination", "disk.create", release=True)
        self.cancel_at_destination("RECEIVING", "source", "iscsi.write", rule="delay 0", options=SLOW)
        self.cancel_at_destination("SEALED", "source", "sender.COMMITTING", release=True)

    def test_after_the_commit(self):
        for _ in range(ROUNDS):
            self.refused_after_the_commit()


class Live(Cancels, LivePools):
    # A guest that runs on is not paused by a cancel; one that is held at the switch is until then.
    pause = 1.0

    def test_while_the_guest_runs(self):
        self.cancel_in("COPYING", "source", "iscsi.write", rule="delay 0", options=SLOW)
        self.cancel_in("CONVERGING", "destination", "peer.serve.incoming.before")
        self.cancel_in("CONVERGING", "destination", "peer.serve.incoming.before", freeze=True)

    def test_while_the_guest_is_paused(self):
        self.pause = LIMIT
        self.cancel_in("SWITCHING", "destination", "peer.serve.seal.before")
        self.cancel_in("SWITCHING", "destination", "peer.serve.seal.before", freeze=True)
        self.cancel_at_destination("SEALED", "source", "sender.COMMITTING", release=True)

    def test_while_it_is_handed_over(self):
        """The destination hangs with the guest's memory on its way."""
        self.pause = LIMIT
        for _ in range(ROUNDS):
            with self.held("source", "sender.HANDOVER", state="HANDOVER") as task:
                with self.frozen(self.destination):
                    self.source.points.disarm("sender.HANDOVER")
                    time.sleep(0.3)
                    asked = time.monotonic()
                    self.by_task(task)
                    taken = self.until_free(task, asked)
                    self.guest.console.wait_for_tick(self.source)
                    self.assertLess(time.monotonic() - asked, LIMIT)
            self.assertEqual(self.assert_laws(self.begun), "stayed")
            self.assert_recorded(self.source, task, "HANDOVER")
            print(f"HANDOVER, the destination hangs: {taken:.2f} s", flush=True)

    if ROUNDS > 1:
        def test_after_the_commit(self):
            self.pause = LIMIT
            for _ in range(ROUNDS):
                self.refused_after_the_commit()


if __name__ == "__main__":
    unittest.main(verbosity=2)
