#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A sender that asked for the commit and hears no answer: what is shown of it, what an operator may say, and what
happens when that was wrong. The destination is a fake that falls silent, and lies, when it is told to."""

import calendar
import os
import sqlite3
import sys
import time
import unittest

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(TESTS, "lib"), os.path.join(TESTS, "func")]

from fakexapi import FakePool  # noqa: E402
from ferrytest import NULL, Failure, Pool, wait_for  # noqa: E402
from slowmove import SlowMove  # noqa: E402
from xensession import wait_by_polling  # noqa: E402

NEVER = "19700101T00:00:00Z"
CHECKED = "--yes-i-have-checked-the-destination"
TIMES = {
    "migration_heartbeat": "200ms",
    "migration_lease": "1s",
    "migration_abandon": "60s",
    "migration_peer_timeout": "60s",
}


class FakeDestination(FakePool):
    """Takes a VM without disks. What it hears is in self.heard: (when, verb)."""

    def __init__(self):
        super().__init__("B")
        self.silent = set()  # verbs that are not answered
        self.decision = "committed"
        self.heard = []
        self.drop = self.is_dropped

    def is_dropped(self, method):
        verb = method.removeprefix("Peer.")
        self.heard.append((time.monotonic(), verb))
        return verb in self.silent or "all" in self.silent

    def call(self, method, params):
        verb = method.removeprefix("Peer.")
        if verb == "prepare":
            return {"exports": []}
        if verb == "seal":
            return {"state": "SEALED"}
        if verb in ("commit", "abort"):
            there = {"vm": NULL} if self.decision == "committed" else {}
            return {"decision": self.decision, **there}
        return {"state": "RECEIVING"} if verb == "status" else {}

    def token(self):
        return {"SM": "x", "host": self.host, "xenops": "x", "session_id": "OpaqueRef:fake", "master": self.url,
                "ferry_protocol": "2", "ferry_fingerprint": self.key_fingerprint(),
                "ferry_data_address": "127.0.0.1", "ferry_data_tls": "on"}

    def times(self, verb):
        return [when for when, what in list(self.heard) if what == verb]


class Doubt(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.a = self.enterContext(Pool("A", **TIMES))
        self.b = self.enterContext(FakeDestination())
        self.vm = self.a.vm_create("guest")
        self.uuid = self.a.session.VM.get_uuid(self.vm)

    def begin(self, *silent):
        self.b.silent = set(silent)
        return self.a.session.Async.VM.migrate_send(self.vm, self.b.token(), True, {}, {}, {})

    def record(self):
        records = self.a.session.migration.get_all_records()
        self.assertLessEqual(len(records), 1)
        return next(iter(records.values()), None)

    def wait_for(self, what, condition, timeout=20):
        """A record of the migration for which it is true."""
        def look():
            record = self.record()
            return record if record and condition(record) else None
        return wait_for(what, look, timeout)

    def begin_in_doubt(self):
        task = self.begin("commit", "abort", "finish", "status")
        record = self.wait_for("it is in doubt", lambda record: record["in_doubt"])
        self.assertEqual(record["state"], "COMMITTING")
        return task, record["uuid"]

    def wait_for_a_long_pause(self):
        """Of some seconds, which has just begun."""
        def is_long():
            times = self.b.times("commit")
            return len(times) >= 6 and time.monotonic() - times[-1] > 0.2
        wait_for("the pauses are long", is_long, 30)

    def resolve(self, uuid, assume, code=0):
        done = self.a.ferry("migration", "resolve", uuid, f"--assume={assume}", CHECKED)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def assert_refused(self, words, *args):
        with self.assertRaises(Failure) as raised:
            self.a.session.migration.resolve(*args)
        self.assertIn(raised.exception.code, ("OPERATION_NOT_ALLOWED", "INVALID_VALUE", "UUID_INVALID"))
        self.assertIn(words, " ".join(raised.exception.details))

    def assert_vm_is_here(self):
        self.assertEqual(self.a.session.VM.get_current_operations(self.vm), {})
        self.assertIn("start", self.a.session.VM.get_allowed_operations(self.vm))

    def assert_vm_is_gone(self):
        self.assertIsNone(self.a.vm_by_uuid(self.uuid))

    # --- what is shown ---

    def test_doubt_and_silence_are_shown_until_they_end(self):
        asked = time.time()
        task, uuid = self.begin_in_doubt()
        self.assertIn("MIG-IN-DOUBT", self.a.log())
        self.assertIn(self.uuid, self.record()["doubt"])
        self.b.silent = {"all"}
        record = self.wait_for("its peer is silent", lambda record: record["peer_silent_since"] != NEVER)
        since = calendar.timegm(time.strptime(str(record["peer_silent_since"]), "%Y%m%dT%H:%M:%SZ"))
        self.assertLess(abs(since - asked), 10)
        self.assertIn("MIG-PEER-SILENT", self.a.log())
        self.assertEqual(record["host"], self.a.host)
        self.a.kill()
        self.a.start()
        self.assertTrue(self.record()["in_doubt"])
        self.b.silent = set()
        wait_by_polling(self.a.session, task, 30)
        record = self.wait_for("it ends", lambda record: record["state"] == "DONE")
        self.assertEqual((record["in_doubt"], record["doubt"], record["peer_silent_since"], record["resolved"]),
                         (False, "", NEVER, {}))
        self.assertEqual(record["uuid"], uuid)
        self.assert_vm_is_gone()

    def test_a_peer_that_is_silent_before_the_commit_is_no_doubt(self):
        task = self.begin()
        wait_by_polling(self.a.session, task, 30)
        vm = self.a.vm_create("another")
        self.b.silent = {"seal", "status"}
        task = self.a.session.Async.VM.migrate_send(vm, self.b.token(), True, {}, {}, {})

        def silent():
            return [record for record in self.a.session.migration.get_all_records().values()
                    if record["peer_silent_since"] != NEVER]
        record, = wait_for("the peer is silent", silent, 20)
        self.assertEqual((record["state"], record["in_doubt"]), ("SWITCHING", False))
        self.assert_refused("cancel it", record["uuid"], "aborted", True)
        self.b.silent = set()
        self.a.session.migration.resume(record["uuid"])
        wait_by_polling(self.a.session, task, 5)

    # --- what is refused ---

    def test_what_needs_no_word_gets_the_truth(self):
        task, uuid = self.begin_in_doubt()
        self.assert_refused("look at the destination", uuid, "aborted", False)
        self.assert_refused("assume", uuid, "perhaps", True)
        self.assert_refused("migration", self.uuid, "aborted", True)
        done = self.a.ferry("migration", "resolve", uuid, "--assume=aborted")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no terminal", done.stderr)
        self.assertEqual(self.a.ferry("migration", "resolve", uuid).returncode, 2)
        self.b.silent = set()
        wait_by_polling(self.a.session, task, 30)
        self.wait_for("it ends", lambda record: record["state"] == "DONE")
        self.assert_refused("has ended", uuid, "aborted", True)

    # --- what is said ---

    def test_aborted_gives_the_vm_back(self):
        task, uuid = self.begin_in_doubt()
        self.resolve(uuid, "aborted")
        wait_for("the VM is free", lambda: not self.a.session.VM.get_current_operations(self.vm), 5)
        self.assert_vm_is_here()
        wait_for("the task has failed", lambda: self.a.session.task.get_status(task) == "failure", 10)
        self.assertIn("an operator said", " ".join(self.a.session.task.get_error_info(task)))
        record = self.record()
        self.assertEqual((record["state"], record["in_doubt"]), ("ABORTING", True))
        self.assertIn("root at 127.0.0.1", record["resolved"]["by"])
        self.assertEqual(record["resolved"]["assumed"], "aborted")
        self.assertIn("MIG-RESOLVED ", self.a.log())
        self.b.decision = "aborted"
        self.b.silent = set()
        record = self.wait_for("it ends", lambda record: record["state"] == "FAILED")
        self.assertEqual((record["in_doubt"], record["resolved"]["peer_said"]), (False, "aborted"))
        self.assert_vm_is_here()
        self.a.wait_for_no_leftovers()

    def test_aborted_said_wrongly_is_a_danger_that_is_shown(self):
        _, uuid = self.begin_in_doubt()
        self.resolve(uuid, "aborted")
        self.wait_for("it is aborted here", lambda record: record["state"] == "ABORTING")
        self.b.silent = set()
        record = self.wait_for("it ends", lambda record: record["state"] == "FAILED")
        self.assertTrue(record["in_doubt"])
        self.assertTrue(record["doubt"].startswith("DANGER"), record["doubt"])
        self.assertEqual(record["resolved"]["peer_said"], "committed")
        self.assertIn("MIG-TWO-OWNERS", self.a.log())
        self.assertTrue(self.b.times("finish"))
        self.a.wait_for_no_leftovers()

    def test_committed_lets_go_of_the_vm(self):
        task, uuid = self.begin_in_doubt()
        self.resolve(uuid, "committed")
        self.assertEqual(wait_by_polling(self.a.session, task, 20), NULL)
        self.assert_vm_is_gone()
        self.assertEqual(self.record()["state"], "FINISHING")
        self.b.silent = set()
        record = self.wait_for("it ends", lambda record: record["state"] == "DONE")
        self.assertEqual((record["in_doubt"], record["resolved"]["peer_said"]), (False, "committed"))
        self.a.wait_for_no_leftovers()

    def test_committed_said_wrongly_is_a_danger_that_is_shown(self):
        _, uuid = self.begin_in_doubt()
        self.resolve(uuid, "committed")
        self.wait_for("it is let go", lambda record: record["state"] == "FINISHING")
        self.b.decision = "aborted"
        self.b.silent = set()
        record = self.wait_for("it ends", lambda record: record["state"] == "DONE")
        self.assertTrue(record["doubt"].startswith("DANGER"), record["doubt"])
        self.assertIn("MIG-NO-OWNER", self.a.log())

    def test_the_word_of_the_destination_comes_first(self):
        """It answers the last question, before the operator's word is acted upon."""
        task, uuid = self.begin_in_doubt()
        self.wait_for_a_long_pause()
        self.b.silent = set()
        self.resolve(uuid, "aborted")
        wait_by_polling(self.a.session, task, 20)
        self.assert_vm_is_gone()
        record = self.wait_for("it ends", lambda record: record["state"] == "DONE")
        self.assertEqual((record["in_doubt"], record["resolved"]["peer_said"]), (False, "committed"))
        self.assertNotIn("MIG-TWO-OWNERS", self.a.log())

    def test_a_word_survives_the_death_of_the_agent(self):
        _, uuid = self.begin_in_doubt()
        self.resolve(uuid, "aborted")
        self.a.kill()
        self.a.start()
        self.wait_for("it is aborted here", lambda record: record["state"] == "ABORTING")
        self.assert_vm_is_here()
        self.assertEqual(self.record()["resolved"]["assumed"], "aborted")

    # --- trying again ---

    def test_resume_does_not_wait(self):
        task, uuid = self.begin_in_doubt()
        self.wait_for_a_long_pause()
        self.b.silent = set()
        asked = time.monotonic()
        self.assertEqual(self.a.ferry("migration", "resume", uuid).returncode, 0)
        # The pause is one of 6.4 s.
        wait_by_polling(self.a.session, task, 5)
        self.assertLess(time.monotonic() - asked, 5)

    def test_forget_ends_what_nobody_will_ever_hear(self):
        _, uuid = self.begin_in_doubt()
        self.resolve(uuid, "aborted")
        self.wait_for("it is aborted here", lambda record: record["state"] == "ABORTING")
        self.assertEqual(self.a.ferry("migration", "forget", uuid).returncode, 0)
        self.wait_for("it ends", lambda record: record["state"] == "FAILED", 5)
        self.a.wait_for_no_leftovers()


class RealDestination(SlowMove):
    """The commit is held up in the destination's database, and its agent dies meanwhile."""

    def begin_in_doubt(self):
        task = self.move().begin()
        db = sqlite3.connect(self.b.path("state", "pool.db"), isolation_level=None)
        wait_for("the copy is under way", lambda: "RECEIVING" in self.b.stored_states("receiver"), 20)
        db.execute("BEGIN IMMEDIATE")
        wait_for("it asks for the commit", lambda: "COMMITTING" in self.a.stored_states("sender"), 60)
        self.b.kill()
        db.execute("ROLLBACK")
        db.close()
        self.assertEqual(self.b.stored_states("receiver"), {"SEALED"})
        record = wait_for("it is in doubt", lambda: [
            record for record in self.a.session.migration.get_all_records().values() if record["in_doubt"]], 20)[0]
        return task, record["uuid"]

    def test_assumed_committed_and_then_it_is(self):
        """The disks stay: nobody but an operator has said that their data is there."""
        task, uuid = self.begin_in_doubt()
        disks = self.a.session.VDI.get_all()
        self.a.session.migration.resolve(uuid, "committed", True)
        wait_by_polling(self.a.session, task, 20)
        self.assertIsNone(self.a.vm_by_uuid(self.uuid))
        self.assertEqual(self.a.session.VDI.get_all(), disks)
        self.b.start()
        wait_for("it is there", lambda: self.b.vm_by_uuid(self.uuid), 20)
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()
        self.assertEqual(self.a.session.VDI.get_all(), disks)


if __name__ == "__main__":
    unittest.main(verbosity=2)
