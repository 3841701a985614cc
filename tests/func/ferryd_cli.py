#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What ferryd says to its command line and to a configuration that is wrong."""

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, daemon_user, give

SOURCE = os.environ.get("FERRY_SOURCE") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..")


class Cli(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="f.")
        os.chmod(self.root, 0o755)
        self.addCleanup(shutil.rmtree, self.root)
        self.conf = os.path.join(self.root, "ferryd.conf")
        self.write("")

    def write(self, text):
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(text)

    def write_folders(self, user=None):
        for name in ("state", "run"):
            os.mkdir(os.path.join(self.root, name), 0o700)
            give(os.path.join(self.root, name))
        self.write(f"[ferryd]\nuser = {user or daemon_user().pw_name}\n"
                   f"state_dir = {self.root}/state\nrun_dir = {self.root}/run\n"
                   "listen = 127.0.0.1:0\n")

    def ferryd(self, *args, **kwargs):
        return subprocess.run([os.path.join(BIN, "ferryd"), *args], check=False, text=True,
                              capture_output=True, timeout=20, **kwargs)

    def assert_refused(self, done, status, *texts):
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertEqual(done.stdout, "")
        for text in texts:
            self.assertIn(text, done.stderr)

    def test_version_and_help_go_to_standard_output(self):
        version = self.ferryd("--version")
        self.assertEqual((version.returncode, version.stderr), (0, ""))
        self.assertRegex(version.stdout, r"\Aferryd \d+\.\d+\.\d+\n\Z")
        done = self.ferryd("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for option in ("--config", "--check-config", "--set-password", "--version"):
            self.assertIn(option, done.stdout)

    def test_a_mistake_on_the_command_line_is_a_usage_error(self):
        self.assert_refused(self.ferryd("--verbose"), 2, "--verbose", "--help")
        self.assert_refused(self.ferryd("--config"), 2, "--config")
        self.assert_refused(self.ferryd("start"), 2, 'unexpected argument "start"')
        self.assert_refused(self.ferryd("--help", "--version"), 2, "only one of")

    def test_a_missing_configuration_is_named(self):
        self.assert_refused(self.ferryd("--config", "/nonexistent.conf"), 1,
                            "/nonexistent.conf", "No such file")

    def test_every_mistake_in_the_configuration_is_said_with_its_line(self):
        self.write("[ferryd]\nworkers = many\nlissen = x\n[nonsense]\n")
        for args in ((), ("--check-config",), ("--set-password", "root")):
            done = self.ferryd("--config", self.conf, *args, stdin=subprocess.DEVNULL)
            self.assert_refused(
                done, 1, f'{self.conf}:2: [ferryd] workers = "many" is not valid; allowed: a number '
                "from 1 to 256", f"{self.conf}:3: unknown key lissen in [ferryd]; allowed: user,",
                f"{self.conf}:4: unknown section [nonsense]; allowed: [ferryd], [migration]")

    def test_what_check_config_prints_is_a_configuration(self):
        first = self.ferryd("--config", self.conf, "--check-config")
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        self.assertIn("\nlisten = 0.0.0.0:443\n", first.stdout)
        self.write(first.stdout)
        second = self.ferryd("--config", self.conf, "--check-config")
        self.assertEqual((second.returncode, second.stdout), (0, first.stdout))

    def test_the_example_is_valid(self):
        done = self.ferryd("--config", os.path.join(SOURCE, "docs", "examples", "ferryd.conf"),
                           "--check-config")
        self.assertEqual(done.returncode, 0, done.stderr)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_a_user_that_does_not_exist_is_named(self):
        self.write_folders(user="no-such-user")
        self.assert_refused(self.ferryd("--config", self.conf), 1,
                            'the user "no-such-user" ([ferryd] user) does not exist')

    def test_a_password_comes_from_one_line(self):
        self.write_folders()
        done = self.ferryd("--config", self.conf, "--set-password", "root", input="Open-5esame!\n")
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        database = os.path.join(self.root, "state", "pool.db")
        status = os.stat(database)
        self.assertEqual(status.st_mode & 0o777, 0o600)
        self.assertEqual(status.st_uid, daemon_user().pw_uid)
        found = b""
        for name in os.listdir(os.path.join(self.root, "state")):
            with open(os.path.join(self.root, "state", name), "rb") as file:
                found += file.read()
        self.assertIn(b"$y$", found)
        self.assertFalse(b"Open-5esame!" in found, "the password stands in the state folder")

    def test_a_bad_password_or_user_is_refused(self):
        self.write_folders()
        for user, text, reason in (("root", "", "empty"), ("root", "\n", "empty"),
                                   ("root", "x" * 512 + "\n", "longer than 511 bytes"),
                                   ("", "x\n", "is no user name"),
                                   ("a\tb", "x\n", "is no user name")):
            done = self.ferryd("--config", self.conf, "--set-password", user, input=text)
            self.assert_refused(done, 1, reason)

    def test_a_terminal_is_asked_twice_and_shows_nothing(self):
        self.write_folders()
        for second, status in (("geheim", 0), ("gehein", 1)):
            ours, theirs = pty.openpty()
            with subprocess.Popen([os.path.join(BIN, "ferryd"), "--config", self.conf,
                                   "--set-password", "root"], stdin=theirs, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                # Once the prompt is there, echo is off.
                prompt = process.stderr.read(len("New password: "))
                self.assertEqual(prompt, "New password: ")
                os.write(ours, f"geheim\n{second}\n".encode())
                _, errors = process.communicate(timeout=20)
            self.assertEqual(process.returncode, status, errors)
            self.assertEqual("differ" in errors, status == 1)
            os.set_blocking(ours, False)
            try:
                shown = os.read(ours, 1000)
            except BlockingIOError:
                shown = b""
            self.assertNotIn(b"gehei", shown)
            os.close(ours)
            os.close(theirs)


if __name__ == "__main__":
    unittest.main(verbosity=2)
