#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ferryd as a process: what it is allowed, whom it refuses, how it starts, stops and starts again."""

import os
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, MIB, PASSWORD, Pool, daemon_user, free_port, give, wait_for
from xensession import Failure, Session


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


class Process(unittest.TestCase):
    def setUp(self):
        self.pool = Pool("p")
        self.addCleanup(self.pool.remove)
        self.addCleanup(self.pool.stop)

    def other(self, **changes):
        """A second ferryd on the first one's configuration, with changes; it must not come up."""
        path = self.pool.path("other.conf")
        with open(self.pool.path("ferryd.conf"), encoding="utf-8") as file:
            lines = file.read().splitlines()
        with open(path, "w", encoding="utf-8") as file:
            for line in lines:
                key = line.split(" = ")[0]
                file.write(f"{key} = {changes[key]}\n" if key in changes else line + "\n")
        return subprocess.run([os.path.join(BIN, "ferryd"), "--config", path], check=False,
                              capture_output=True, text=True, timeout=20)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_nothing_of_root_is_left(self):
        self.pool.start()
        status = status_of(self.pool.process.pid)
        user = daemon_user()
        self.assertEqual(status["Uid"].split(), [str(user.pw_uid)] * 4)
        self.assertEqual(status["Gid"].split(), [str(user.pw_gid)] * 4)
        self.assertNotIn("0", status["Groups"].split())
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[kind], 16), 0, kind)
        # Every thread, not only the first one.
        for task in os.listdir(f"/proc/{self.pool.process.pid}/task"):
            self.assertEqual(status_of(task)["Uid"].split(), [str(user.pw_uid)] * 4)
        for folder in ("state", "run"):
            for parent, _, names in os.walk(self.pool.path(folder)):
                for name in names:
                    found = os.stat(os.path.join(parent, name))
                    self.assertEqual(found.st_uid, user.pw_uid, name)
                    self.assertEqual(found.st_mode & 0o077, 0, name)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_root_makes_the_folders_for_the_user(self):
        for folder in ("state", "run"):
            subprocess.run(["rm", "-r", self.pool.path(folder)], check=True)
        self.pool.process = subprocess.Popen(
            [os.path.join(BIN, "ferryd"), "--config", self.pool.path("ferryd.conf")],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("it is ready", lambda: os.path.exists(self.pool.path("run", "url")), 20)
        for folder in ("state", "run"):
            status = os.stat(self.pool.path(folder))
            self.assertEqual(status.st_uid, daemon_user().pw_uid)
            self.assertEqual(status.st_mode & 0o777, 0o700)

    def test_a_second_one_on_the_same_folders_is_refused(self):
        self.pool.start()
        done = self.other(listen="127.0.0.1:0")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"another ferryd (process {self.pool.process.pid}) uses "
                      f"{self.pool.path('state')}", done.stderr)
        self.pool.session.host.get_all()

    def test_a_busy_port_is_said(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = self.other(listen=address)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on {address}: Address already in use", done.stderr)
        self.assertIn("[ferryd] listen", done.stderr)
        self.assertFalse(os.path.exists(self.pool.path("run", "url")))

    def test_a_busy_data_port_is_said(self):
        self.pool.configure(ferryd_data_port=free_port())
        self.pool.start()
        with socket.create_connection(("127.0.0.1", self.pool.settings["ferryd_data_port"])):
            pass
        folders = {key: self.pool.path(key) for key in ("state_dir", "run_dir")}
        for folder in folders.values():
            os.mkdir(folder, 0o750)
            give(folder)
        done = self.other(listen="127.0.0.1:0", **folders)
        self.assertEqual(done.returncode, 1)
        self.assertIn("[ferryd] data_port", done.stderr)

    def test_an_address_of_another_host_is_said(self):
        done = self.other(listen="192.0.2.1:0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("this host has no such address", done.stderr)

    def test_a_folder_that_cannot_be_written_is_said(self):
        done = self.other(state_dir="/proc")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/proc ([ferryd] state_dir) must be a directory that uid", done.stderr)

    def test_a_database_that_is_none_is_said(self):
        with open(self.pool.path("state", "agent.db"), "wb") as file:
            file.write(b"no database at all" * 1000)
        os.chmod(self.pool.path("state", "agent.db"), 0o666)
        done = self.other()
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.pool.path("state", "agent.db"), done.stderr)

    def test_it_stops_within_two_seconds(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.pool.start()
            with subprocess.Popen(
                    [sys.executable, "-c", WAIT_FOR_EVENTS,
                     os.path.dirname(os.path.abspath(__file__)), self.pool.url,
                     self.pool.session.ref], stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL) as waiter:
                # It has had the first answer, and asks again.
                self.assertEqual(waiter.stdout.readline(), b"begun\n")
                begin = time.monotonic()
                self.pool.process.send_signal(number)
                self.assertEqual(self.pool.process.wait(10), 0)
                self.assertLess(time.monotonic() - begin, 2)
                self.pool.process = None
                waiter.wait(10)
            self.assertFalse(os.path.exists(self.pool.path("run", "url")))

    def test_a_restart_keeps_the_objects(self):
        self.pool.start()
        session = self.pool.session
        sr = self.pool.sr_create()
        vdi = session.VDI.create({
            "name_label": "disk", "name_description": "", "SR": sr, "virtual_size": str(4 * MIB),
            "type": "user", "sharable": False, "read_only": False, "other_config": {"k": "v"}})
        before = {name: session.call(f"{name}.get_all") for name in ("pool", "host", "SR", "VDI",
                                                                    "PBD", "VM", "network", "PIF")}
        record = session.VDI.get_record(vdi)
        for stop in (self.pool.stop, self.pool.kill):
            stop()
            self.pool.start()
            session = self.pool.session
            for name, refs in before.items():
                self.assertEqual(sorted(session.call(f"{name}.get_all")), sorted(refs), name)
            self.assertEqual(session.VDI.get_record(vdi), record)

    def test_the_url_file_says_the_port_that_was_found(self):
        self.pool.configure(ferryd_listen="127.0.0.1:0")
        self.pool.process = subprocess.Popen(
            [os.path.join(BIN, "ferryd"), "--config", self.pool.path("ferryd.conf")],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("it is ready", lambda: os.path.exists(self.pool.path("run", "url")), 20)
        with open(self.pool.path("run", "url"), encoding="utf-8") as file:
            url = file.read()
        self.assertRegex(url, r"\Ahttps://127\.0\.0\.1:[1-9]\d*\n\Z")
        Session(url.strip(), "root", PASSWORD).logout()

    def test_a_password_set_while_it_runs_is_valid_at_once(self):
        self.pool.start()
        done = self.pool.ferryd("--set-password", "root", input="another one\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        Session(self.pool.url, "root", "another one").logout()
        with self.assertRaises(Failure) as refused:
            Session(self.pool.url, "root", PASSWORD)
        self.assertEqual(refused.exception.code, "SESSION_AUTHENTICATION_FAILED")

    def test_sighup_reads_the_log_level_again_and_nothing_else(self):
        self.pool.start()
        self.pool.configure(ferryd_log_level="info", ferryd_listen="127.0.0.1:1")
        self.pool.process.send_signal(signal.SIGHUP)
        wait_for("it is logged", lambda: "RELOADED log_level=6" in self.log(), 10)
        with open(self.pool.path("ferryd.conf"), "w", encoding="utf-8") as file:
            file.write("[ferryd]\nlog_level = loud\n")
        self.pool.process.send_signal(signal.SIGHUP)
        wait_for("it is refused", lambda: "RELOAD_FAILED" in self.log(), 10)
        self.assertTrue(self.pool.session.host.get_all())

    def log(self):
        with open(self.pool.path("log"), encoding="utf-8") as file:
            return file.read()


WAIT_FOR_EVENTS = """
import os, sys
sys.path.insert(0, os.path.join(sys.argv[1], "..", "lib"))
from xensession import Transport
import xmlrpc.client
server = xmlrpc.client.ServerProxy(sys.argv[2], transport=Transport(30))
token = ""
while True:
    answer = getattr(server, "event.from")(sys.argv[3], ["*"], token, 20.0)
    if answer["Status"] != "Success":
        break
    if not token:
        print("begun", flush=True)
    token = answer["Value"]["token"]
"""

if __name__ == "__main__":
    unittest.main(verbosity=2)
