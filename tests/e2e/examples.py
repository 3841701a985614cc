#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The scripts of docs/examples, run as a user would, against two pools."""

import datetime
import os
import signal
import subprocess
import sys
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))

from ferrytest import MIB, PASSWORD, Pool, wait_for

FOLDER = os.path.join(ROOT, "docs", "examples")
SCRIPTS = ("evacuate_host", "drain_pool", "move_by_tag", "nightly_move")


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A", migration_max_sending=1))
        cls.b = cls.enterClassContext(Pool("B"))
        cls.sr_a, cls.sr_b = cls.a.sr_create(), cls.b.sr_create("target")
        cls.password = cls.a.path("password")
        with open(os.open(cls.password, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(PASSWORD + "\n")

    def tearDown(self):
        for pool in (self.a, self.b):
            pool.wait_for_no_leftovers()
            for ref in pool.session.VM.get_all():
                if not pool.session.VM.get_is_control_domain(ref) and not pool.session.VM.get_is_a_template(ref):
                    pool.session.VM.destroy(ref)

    def new_vm(self, label, size=64 << 10, **fields):
        vdi = self.a.vdi_create(self.sr_a, size)
        self.a.vdi_write(vdi, os.urandom(size))
        return self.a.vm_create(label, [vdi], **fields)

    def names(self, pool):
        return sorted(vm["name_label"] for vm in pool.session.VM.get_all_records().values()
                      if not (vm["is_control_domain"] or vm["is_a_template"]))

    def server(self, pool, prefix=""):
        return [f"--{prefix}url", pool.url, f"--{prefix}password-file", self.password,
                f"--{prefix}fingerprint", pool.fingerprint()]

    def command(self, script, *args):
        return [sys.executable, os.path.join(FOLDER, f"{script}.py"), *args]

    def run_script(self, script, *args, code=0):
        done = subprocess.run(self.command(script, *args), check=False, capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        self.assertEqual(done.returncode, code, (done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stdout + done.stderr

    def both(self):
        return [*self.server(self.a), *self.server(self.b, "to-"), "--sr", "target"]

    def test_help_and_mistakes(self):
        for script in SCRIPTS:
            self.assertIn("--fingerprint", self.run_script(script, "--help"))
            self.assertIn("required", self.run_script(script, code=2))
        args = self.server(self.a)
        args[-1] = "0" * 64
        self.assertIn("not the one that is pinned", self.run_script("evacuate_host", *args, "host-A", code=1))
        by_file = ["--url", self.a.url, "--password-file", self.password]
        trusted = [*by_file, "--ca-file", self.a.path("state", "tls.crt")]
        self.assertIn("CERTIFICATE_VERIFY_FAILED", self.run_script("evacuate_host", *by_file, "host-A", code=1))
        self.assertIn("no host called nobody", self.run_script("evacuate_host", *trusted, "nobody", code=1))
        self.assertIn("No such file", self.run_script(
            "evacuate_host", "--url", self.a.url, "--password-file", "/nonexistent", "host-A", code=1))

    def test_a_pool_is_drained(self):
        for i in range(4):
            self.new_vm(f"vm {i}")
        blocked = self.new_vm("blocked", blocked_operations={"migrate_send": "the books are closed"})
        out = self.run_script("drain_pool", *self.both(), "--by-name", "--at-once", "2", code=1)
        self.assertIn("blocked: OPERATION_BLOCKED", out)
        self.assertIn("4 of 5 moved", out)
        self.assertEqual((self.names(self.a), self.names(self.b)), (["blocked"], [f"vm {i}" for i in range(4)]))
        self.a.session.VM.remove_from_blocked_operations(blocked, "migrate_send")
        self.assertIn("1 of 1 moved", self.run_script("drain_pool", *self.both()))

    def test_ctrl_c_cancels_what_was_begun(self):
        for i in range(3):
            self.new_vm(f"vm {i}", 64 * MIB)
        self.a.session.pool.get_all()
        process = subprocess.Popen(self.command("drain_pool", *self.both(), "--by-name", "--at-once", "2"),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        wait_for("it has begun", lambda: any(m["state"] == "COPYING" for m in self.a.session.migration.get_all_records().values()), 30, 0.01)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 3, (out, error))
        self.assertIn("cancelled", out)
        self.assertIn("not begun", out)
        self.assertEqual(len(self.names(self.a)) + len(self.names(self.b)), 3)
        self.assertGreaterEqual(len(self.names(self.a)), 2)

    def test_by_tag(self):
        self.new_vm("here", tags=[])
        self.new_vm("goes", tags=["to-b", "web"])
        self.assertIn("1 of 1 moved", self.run_script("move_by_tag", *self.both(), "to-b"))
        self.assertEqual((self.names(self.a), self.names(self.b)), (["here"], ["goes"]))
        vm, = self.b.session.VM.get_by_name_label("goes")
        self.assertEqual(self.b.session.VM.get_tags(vm), ["web"])
        self.assertIn("has the tag to-b", self.run_script("move_by_tag", *self.both(), "to-b", code=1))

    def test_within_the_window_only(self):
        self.new_vm("nightly")
        now = datetime.datetime.now()

        def window(begin, end):
            return [f"--{name}={(now + datetime.timedelta(minutes=at)):%H:%M}" for name, at in (("begin", begin), ("end", end))]
        out = self.run_script("nightly_move", *self.both(), *window(60, 120), "nightly", code=1)
        self.assertIn("nothing was begun", out)
        out = self.run_script("nightly_move", *self.both(), *window(-60, 60), "--reserve", "120", "nightly", code=1)
        self.assertIn("not begun", out)
        self.assertEqual(self.names(self.a), ["nightly"])
        self.assertIn("1 of 1 moved", self.run_script("nightly_move", *self.both(), *window(-60, 60), "nightly"))

    def test_the_end_of_the_window_cancels(self):
        sys.path.insert(0, FOLDER)
        self.addCleanup(sys.path.remove, FOLDER)
        sys.dont_write_bytecode = True
        import ferryscript
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        vm = self.new_vm("long", 64 * MIB)
        there = self.b.session
        moves = ferryscript.Moves(self.a.session, 1)
        last = time.monotonic() + 0.6
        moves.run([("long", lambda: ferryscript.move_to_pool(self.a.session, there, vm, self.sr_b, None, {"bandwidth": str(MIB)}))],
                  may_go_on=lambda: time.monotonic() < last)
        self.assertEqual((moves.results, moves.report()), ({"long": "cancelled"}, ferryscript.FAILED))
        self.assertEqual((self.names(self.a), self.names(self.b)), (["long"], []))

    def test_an_empty_host_is_evacuated(self):
        host = self.b.session.host.get_name_label(self.b.host)
        self.assertEqual(self.run_script("evacuate_host", *self.server(self.b), host, "--check"), "")
        self.run_script("evacuate_host", *self.server(self.b), host)
        self.assertFalse(self.b.session.host.get_enabled(self.b.host))
        self.b.session.host.enable(self.b.host)


if __name__ == "__main__":
    unittest.main(verbosity=2)
