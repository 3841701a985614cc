# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: a configuration, and `ferry` in a pipe or a terminal."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from fakexapi import PASSWORD, USER, FakePool

BIN = os.environ.get("FERRY_BIN") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "dev", "bin")
FERRY = os.path.join(BIN, "ferry")
TIMEOUT = 60


class Terminal:
    """`ferry` with a controlling terminal; standard output goes to a pipe of its own."""

    def __init__(self, command, env):
        read, write = os.pipe()
        self.pid, self.tty = pty.fork()
        if self.pid == 0:
            os.dup2(write, 1)
            os.execve(command[0], command, env)
        os.close(write)
        self.stdout = read
        self.seen = ""

    def wait_for(self, text):
        deadline = time.monotonic() + TIMEOUT
        while text not in self.seen:
            if time.monotonic() > deadline or not self._read(deadline):
                raise AssertionError(f"{text!r} was not shown: {self.seen!r}")

    def _read(self, deadline):
        if not select.select([self.tty], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.tty, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += data.decode()
        return bool(data)

    def type(self, text):
        os.write(self.tty, text.encode())

    def end(self):
        """Exit code and standard output."""
        deadline = time.monotonic() + TIMEOUT
        while self._read(deadline):
            pass
        output = b""
        while True:
            data = os.read(self.stdout, 65536)
            if not data:
                break
            output += data
        os.close(self.stdout)
        os.close(self.tty)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), output.decode()


class CliTest(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = tempfile.mkdtemp(prefix="ferry-cli.")
        self.stack.callback(shutil.rmtree, self.folder)
        self.config = os.path.join(self.folder, "ferry.conf")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.folder, "TERM": "xterm", **{
            name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}}

    def fake(self, name):
        pool = self.stack.enter_context(FakePool(name))
        self.configure(name, pool)
        return pool

    def configure(self, name, pool, password=PASSWORD):
        with open(os.open(self.config, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a",
                  encoding="utf-8") as file:
            file.write(f"[server {name}]\nurl = {pool.url}\nuser = {USER}\npassword = {password}\n"
                       f"fingerprint = {pool.key_fingerprint()}\n")

    def write_config(self, text, mode=0o600):
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.config, mode)

    def ferry(self, *args, code=0, **kwargs):
        """Runs it without a terminal; checks the exit code; gives (stdout, stderr)."""
        done = subprocess.run([FERRY, "--config", self.config, *args], env=self.env, check=False,
                              capture_output=True, text=True, timeout=TIMEOUT,
                              start_new_session=True, stdin=subprocess.DEVNULL, **kwargs)
        self.assertEqual(done.returncode, code, (args, done.stdout, done.stderr))
        if code:
            self.assertEqual(done.stdout, "", "no result, no output")
        return done.stdout, done.stderr

    def refused(self, *args, code=1):
        """The error text."""
        return self.ferry(*args, code=code)[1]

    def json(self, *args):
        return json.loads(self.ferry("--json", *args)[0])

    def start(self, *args):
        """Runs it in the background, without a terminal."""
        process = subprocess.Popen([FERRY, "--config", self.config, *args], env=self.env,
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, start_new_session=True)
        self.stack.callback(self.reap, process)
        return process

    @staticmethod
    def reap(process):
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()

    def terminal(self, *args):
        return Terminal([FERRY, "--config", self.config, *args], self.env)
